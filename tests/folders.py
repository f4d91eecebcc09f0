"""Small results folders: predictions with a given accuracy, with their images on disk and vectors in a cache."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from trees import jpeg

from toolkit.cache.store import Cache
from toolkit.encoders.record import EncoderRecord
from toolkit.evaluation import columns
from toolkit.evaluation.scoring import score, with_p_best
from toolkit.results import run_records, tables

LABELS = ("FAKE", "REAL")
EACH = 20
RIGHT = {
    ("base", "zero-shot"): (0.55, 0.5),
    ("base", "logreg"): (0.8, 0.6),
    ("finetuned", "zero-shot"): (0.9, 0.85),
    ("finetuned", "logreg"): (0.95, 0.9),
}
"""(encoder, head) -> the share that it gets right on base and on novel."""

Right = Mapping[tuple[str, str], tuple[float, float]]
Seconds = Mapping[tuple[str, str], float]

SECONDS: Seconds = {
    ("base", "zero-shot"): 0.01,
    ("base", "logreg"): 2.0,
    ("finetuned", "zero-shot"): 90.0,
    ("finetuned", "logreg"): 82.0,
}
"""(encoder, head) -> seconds until it can answer."""


class Images:
    """A folder `test/<label>/<category>/<number>.jpg` with `each` images of each label and category."""

    def __init__(
        self, root: Path, categories: Sequence[str] = ("dog", "cat"), labels: Sequence[str] = LABELS, each: int = EACH
    ):
        self.root, self.labels = root, list(labels)
        rows = []
        for label in labels:
            for category in categories:
                for number in range(each):
                    data = jpeg(len(rows), "REAL" if label == labels[1] else "FAKE", 16)
                    place = root / "test" / label / category / f"{number}.jpg"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(data)
                    path = place.relative_to(root).as_posix()
                    rows.append((path, hashlib.sha256(data).hexdigest(), category, label))
        names = ["path", "sha256", "category", "label"]
        self.rows = pl.DataFrame(rows, schema=names, orient="row")
        self.digest = hashlib.sha256("".join(self.rows["sha256"]).encode()).hexdigest()[:12]


def predict(images: Images, right: float, scatter: int = 0, **about: object) -> pl.DataFrame:
    """Predictions on the images of one test set, of which the share `right` is right, scattered by that seed.

    Of more than two labels a wrong image is called the label after its own.
    """
    every: dict[str, object] = {"dataset": "made", "held_out": "cat", "encoder": "base", "head": "logreg"}
    every |= {"test": "base", "model": "nano", "pretrained": "p", "encoder_id": "e0", "recipe": "", "seed": 0}
    every |= {
        "perturbation": "",
        "test_data": "",
        "train_per_label": 450,
        "test_per_label": 100,
        "chosen_by": "",
        "labels": json.dumps(images.labels),
        "split_by": "category",
        "images": images.digest,
        "study": "",
    } | about
    is_novel = pl.col("category") == every["held_out"]
    rows = images.rows.filter(is_novel if every["test"] == "novel" else ~is_novel)
    rng = np.random.default_rng(scatter)
    good = rng.permutation(len(rows)) < round(right * len(rows))
    if len(images.labels) > 2:
        return _predict_many(images, rows, good, rng, every)
    positive = (rows["label"] == images.labels[1]).to_numpy()
    p = np.where(positive == good, 0.6, 0.1) + rng.uniform(0, 0.3, len(rows))
    called = [images.labels[int(one > 0.5)] for one in p]
    made = rows.with_columns(
        *(pl.lit(value, dtype=columns.PREDICTIONS[name][0]).alias(name) for name, value in every.items()),
        predicted=pl.Series(called, dtype=pl.String),
        p_real=pl.Series(p),
    )
    return columns.brought_up_to_date(made, columns.PREDICTIONS)


def _predict_many(
    images: Images, rows: pl.DataFrame, good: np.ndarray, rng: np.random.Generator, about: dict[str, object]
) -> pl.DataFrame:
    count = len(images.labels)
    true = np.array([images.labels.index(label) for label in rows["label"]])
    called = np.where(good, true, (true + 1) % count)
    odds = rng.uniform(0, 1, (len(rows), count))
    odds[np.arange(len(rows)), called] = rng.uniform(1, 3, len(rows))
    odds /= odds.sum(axis=1, keepdims=True)
    made = rows.with_columns(
        *(pl.lit(value, dtype=columns.PREDICTIONS[name][0]).alias(name) for name, value in about.items()),
        predicted=pl.Series([images.labels[one] for one in called]),
        p_real=pl.lit(None, pl.Float64),
        probabilities=pl.Series(odds.tolist(), dtype=pl.List(pl.Float64)),
        p_predicted=pl.Series(odds[np.arange(len(rows)), called]),
        p_label=pl.Series(odds[np.arange(len(rows)), true]),
    )
    return columns.brought_up_to_date(made, columns.PREDICTIONS)


def study(images: Images, right: Right = RIGHT, **about: object) -> list[pl.DataFrame]:
    """Both test sets of every encoder and head; fine-tuned ones are called `study`."""
    found = []
    held_out = about.get("held_out", "cat")
    for number, ((encoder, head), shares) in enumerate(right.items()):
        recipe = "" if encoder == "base" else "study"
        identity = "e0" if encoder == "base" else f"f-{held_out}-{about.get('seed', 0)}"
        one = {"encoder": encoder, "head": head, "recipe": recipe, "encoder_id": identity, **about}
        tests = ("base",) if held_out == "none" else ("base", "novel")
        for test, share in zip(tests, shares, strict=False):
            found.append(predict(images, share, number, test=test, **one))
    return found


def store(folder: Path, predictions: Sequence[pl.DataFrame], labels: Sequence[str] = LABELS, **facts: object) -> Path:
    """The results folder of these predictions; `facts` are noted of them, as `compare` does."""
    every = pl.concat(predictions)
    rows = [
        {**row, "train_rows": 900, "leaks_dropped": 0, "created": "2026-01-01 00:00:00"}
        for row in score(every, labels, 0)
    ]
    table = pl.DataFrame(rows, schema=columns.schema(columns.RESULTS))
    tables.store(folder, with_p_best(table, every), every)
    if facts:
        run_records.note(folder, table, facts)
    return folder


def priced(folder: Path, seconds: Seconds = SECONDS, on: str = "a (fp32)") -> Path:
    """The same folder, its rows with a cost: half of the seconds embedding, a quarter each training and fitting."""
    table, predictions = tables.read(folder)
    pairs = table.select("encoder", "head").rows()
    total = pl.Series([seconds.get((encoder, head)) for encoder, head in pairs], dtype=pl.Float64)
    paid = table.with_columns(
        embedding_seconds=total / 2,
        training_seconds=total / 4,
        fitting_seconds=total / 4,
        answer_ms=total * 2,
        measured_on=pl.lit(on),
        images_labelled=pl.lit(900, pl.Int64),
        parameters_trained=pl.lit(5_276_962, pl.Int64),
    )
    tables.store(folder, paid, predictions)
    return folder


def cache_vectors(root: Path, identity: str, images: Images) -> Path:
    """A cache in which the encoder `identity` has a vector of each image."""
    record = EncoderRecord(identity=identity, model="nano", pretrained="p", dimension=8)
    vectors = np.random.default_rng(1).standard_normal((len(images.rows), 8)).astype(np.float32)
    Cache(root, record).append_images(images.rows["sha256"].to_list(), vectors)
    return root


def without_times(table: pl.DataFrame) -> pl.DataFrame:
    """The results without what differs from run to run: when they were made, and how long it took."""
    return table.drop("created", *columns.TIMES)
