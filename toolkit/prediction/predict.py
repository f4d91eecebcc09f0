"""Predict with a kept head on the user's images: label, P, and whether an image is far from all training images."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from toolkit.cache import embedding
from toolkit.cache.store import Cache
from toolkit.data.equalise import equalised, parse_steps
from toolkit.data.held_out import LABEL, NONE
from toolkit.data.manifest import Dataset, Stages, hash_rows
from toolkit.data.split import first_fresh
from toolkit.encoders import openclip as encoders
from toolkit.encoders.features import WITHOUT_MODEL
from toolkit.encoders.record import IMPORTED, Encoder
from toolkit.errors import EncoderError, MissingEmbeddings, SelectionError
from toolkit.finetuning.loading import Loaders
from toolkit.prediction import calibration, kept_heads, pick
from toolkit.prediction.calibration import Fresh, Rule
from toolkit.prediction.kept_heads import KeptHead
from toolkit.prediction.pick import Pick

ROWS_AT_ONCE = 1024
"""So many images are predicted at once: vectors of a large folder do not fit into memory."""
MOST_FRESH = 500
"""At most this many new images of each label are used for calibration."""


@dataclass(frozen=True)
class Request:
    """The options of `predict`, besides the images. `alpha` abstains, `recall` moves the threshold; not both.

    `recall` is guaranteed for the label `recall_of`, by default the negative one of two
    (`calibration.operating_point`). Both are calibrated on the training images, or on new ones from `calibration`, a
    data set with the same labels.
    """

    cache: Path
    results: Path
    encoder: str | None = None
    head: str | None = None
    alpha: float | None = None
    recall: float | None = None
    recall_of: str | None = None
    calibration: Dataset | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Predicted:
    """The predictions, and the head and rule that made them.

    `images` has a row for each image, in the order given. Columns: path; label (null if unreadable or if `open` has not
    exactly one label); p_real, the positive label's probability, if there is one; open, the possible labels, joined by
    `|`; far and distance, the cosine distance to the nearest training image; reason, why it could not be read;
    probabilities, a list in the order of the head's labels. `pick` says how the head was chosen."""

    images: pl.DataFrame
    pick: Pick
    rule: Rule

    @property
    def head(self) -> KeptHead:
        return self.pick.head

    @property
    def read(self) -> int:
        """The number of images that could be read."""
        return len(self.images) - self.images["reason"].count()


def predict(dataset: Dataset, request: Request, progress: Stages = lambda stage, done, total: None) -> Predicted:
    """Predict every image of `dataset`; unreadable ones get a reason instead.

    Vectors are read from the encoder's cache and stored there, so that predicting again loads no model. Raises
    ResultsError if no head fits, EncoderError if its encoder cannot be loaded again, and what a rule raises.
    """
    picked = pick.best(request.results / kept_heads.FOLDER, request.encoder, request.head)
    about = picked.head
    cache = Cache(request.cache, about.record.encoder)
    vectors_of = _Vectors(about, cache, request, progress)
    rule = _rule(about, vectors_of, request)
    dataset = _equalised(dataset, about)
    distances = _Distances(about, cache)
    with vectors_of.ready(dataset, dataset.rows) as (rows, home):
        slices = list(rows.iter_slices(ROWS_AT_ONCE)) or [rows]
        parts = [_frame(part, _vectors(part, home), rule, about, distances) for part in slices]
    return Predicted(pl.concat(parts), picked, rule)


class _Vectors:
    """Turns images into vectors of the head's encoder, which is loaded once, and only if the cache lacks an image."""

    def __init__(self, about: KeptHead, cache: Cache, request: Request, progress: Stages):
        self.about, self.cache, self.request, self.progress = about, cache, request, progress
        self.load = functools.cache(self._load)

    def __call__(self, dataset: Dataset, rows: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
        """`rows` with sha256 and reason (null if readable), and the vectors `[N, D]` of the readable ones."""
        with self.ready(dataset, rows) as (found, home):
            return found, _vectors(found, home)

    @contextmanager
    def ready(self, dataset: Dataset, rows: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, Cache]]:
        """`rows` with sha256 and reason (null if readable), and a cache that holds the readable ones."""
        rows = hash_rows(dataset, rows, partial(self.progress, "Reading"))
        with _writable(self.cache, self.request.cache, rows) as home:
            watch = partial(self.progress, "Embedding")
            while True:
                readable = rows.filter(pl.col("reason").is_null())
                skipped = embedding.embed_images(dataset, readable, self.load, home, watch).skipped
                if skipped.is_empty():
                    break
                rows = _with_reasons(rows, skipped)  # once more: of equal files, another may be there
            yield rows, home

    def _load(self) -> Encoder:
        stage = f"Loading {self.about.record.encoder.model}"
        self.progress(stage, 0, 1)
        encoder = load_again(self.about, self.request.cache, self.request.device)
        self.progress(stage, 1, 1)
        return encoder


def _vectors(rows: pl.DataFrame, home: Cache) -> np.ndarray:
    """The vectors `[N, D]` of the readable ones among `rows`."""
    return home.read_images(rows.filter(pl.col("reason").is_null())["sha256"].to_list())


def _rule(about: KeptHead, vectors_of: _Vectors, request: Request) -> Rule:
    cache = vectors_of.cache
    head = kept_heads.load(about, cache)
    fresh = _fresh(request.calibration, about, vectors_of) if request.calibration else None
    if request.alpha is not None:
        return calibration.abstaining(about, head, cache, request.alpha, fresh)
    if request.recall is not None:
        asked = request.recall, fresh, vectors_of.progress, request.recall_of
        return calibration.operating_point(about, head, cache, *asked)
    return calibration.likelier(head)


def _fresh(dataset: Dataset, about: KeptHead, vectors_of: _Vectors) -> Fresh:
    """Training images of `dataset` for calibration, without those of the head's comparison."""
    record, mine = about.record, _equalised(dataset.with_labels(about.record.labels.names), about)
    held_out = NONE if record.by == LABEL else record.held_out  # held-out labels are none of its own
    rows = first_fresh(mine, held_out, MOST_FRESH, kept_heads.rows_of(about)["sha256"], record.by)
    rows, vectors = vectors_of(mine, rows.unique("sha256", maintain_order=True).drop("sha256"))
    if rows["reason"].null_count() == 0:
        raise SelectionError(
            f"{dataset.name} has no readable training images to calibrate on but those of the head's own comparison: "
            "name other data (--calibrate)."
        )
    return Fresh(vectors, rows.filter(pl.col("reason").is_null())["label"].to_numpy(), dataset.name)


def _equalised(dataset: Dataset, about: KeptHead) -> Dataset:
    """The data with its pictures equalised as the head's own were."""
    steps = about.record.equalise
    return equalised(dataset, parse_steps(steps)) if steps else dataset


def load_again(about: KeptHead, cache: Path, device: str = "auto") -> Encoder:
    """The encoder that the head was fitted on. Raises EncoderError if it is missing or has changed."""
    record, weights = about.record.encoder, about.record.weights
    if record.pretrained == IMPORTED:
        raise EncoderError(f"The head was fitted on imported vectors ({record.model}): no model can embed new images.")
    if record.sees in WITHOUT_MODEL:
        return WITHOUT_MODEL[record.sees]()
    origin = encoders.source(record.model, weights, record.precision, device)
    encoder = Loaders(cache, origin, lambda: encoders.load(origin)).of(record)()
    if encoder.record.identity != record.identity:
        raise EncoderError(
            f"{record.model} with weights {weights!r} is not the encoder that the head was fitted on: run python "
            f"cli.py embed and compare again."
        )
    return encoder


@contextmanager
def _writable(cache: Cache, root: Path, rows: pl.DataFrame) -> Iterator[Cache]:
    """The cache; if it is read-only and lacks some of the images, a temporary one."""
    parent = next(folder for folder in (cache.folder, root, *root.absolute().parents) if folder.exists())
    if os.access(parent, os.W_OK) or not cache.missing_images(rows["sha256"].drop_nulls().to_list()):
        yield cache
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Cache(Path(folder), cache.record)


def _with_reasons(rows: pl.DataFrame, skipped: pl.DataFrame) -> pl.DataFrame:
    """Add the reasons of images that could not be decoded, also to other images with the same bytes."""
    by_content = dict(skipped.drop_nulls("sha256").select("sha256", "reason").iter_rows())
    by_path = dict(skipped.select("path", "reason").iter_rows())
    found = [
        reason or by_content.get(key) or by_path.get(path)
        for path, key, reason in rows.select("path", "sha256", "reason").iter_rows()
    ]
    return rows.with_columns(pl.Series("reason", found, dtype=pl.String))


def _frame(
    rows: pl.DataFrame, vectors: np.ndarray, rule: Rule, about: KeptHead, distances_of: "_Distances"
) -> pl.DataFrame:
    read = rows["reason"].is_null().to_numpy()
    labels = np.array([str(label) for label in rule.head.classes_])
    probabilities = rule.head.predict_proba(vectors) if len(vectors) else np.empty((0, len(labels)))
    left_open = rule.answers(probabilities)
    answers = [labels[mask][0] if mask.sum() == 1 else None for mask in left_open]
    distances = distances_of(vectors)
    limit, positive = about.record.far_beyond, about.record.labels.positive
    in_order = probabilities[:, [labels.tolist().index(name) for name in about.record.labels]]
    p_real = probabilities[:, calibration.positive_of(about, rule.head)] if positive else [None] * len(probabilities)
    return rows.select("path").with_columns(
        _spread("label", answers, read, pl.String),
        _spread("p_real", p_real, read, pl.Float64),
        _spread("open", ["|".join(labels[mask]) for mask in left_open], read, pl.String),
        _spread("far", [None if d is None or limit is None else d > limit for d in distances], read, pl.Boolean),
        _spread("distance", distances, read, pl.Float64),
        rows["reason"],
        _spread("probabilities", in_order.tolist(), read, pl.List(pl.Float64)),
    )


class _Distances:
    """Cosine distances to the nearest training image, whose vectors are read once; None if the cache lacks them."""

    def __init__(self, about: KeptHead, cache: Cache):
        self.training: np.ndarray | None
        try:
            self.training = kept_heads.vectors_of(kept_heads.training_rows(about), cache)
        except MissingEmbeddings:
            self.training = None

    def __call__(self, vectors: np.ndarray) -> list[float | None]:
        if self.training is None:
            return [None] * len(vectors)
        return [float(one) for one in kept_heads.nearest(self.training, vectors)] if len(vectors) else []


def _spread(name: str, values: Any, read: np.ndarray, kind: type[pl.DataType] | pl.DataType) -> pl.Series:
    """A column with the `values` of the images that were read, and null for the others."""
    rest = iter(values)
    return pl.Series(name, [next(rest) if one else None for one in read], dtype=kind)
