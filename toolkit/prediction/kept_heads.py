"""The heads that `compare` fitted, stored in `<results>/heads/` for `predict`.

A head has two files: `<key>.safetensors` (see `toolkit.heads.stored`), and `<key>.json`, a record with a checksum that
says which encoder it needs and how to load it, what it was trained on, and its figures. `rows-<hash>.parquet` lists the
training and test images of a comparison, and `last.json` names the heads of the last `compare`.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.held_out import CATEGORY
from toolkit.data.labels import Labels
from toolkit.data.split import Split
from toolkit.encoders.record import EncoderRecord
from toolkit.encoders.source import Source
from toolkit.errors import CacheError, MissingEmbeddings, ResultsError
from toolkit.evaluation import columns
from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import as_plain, of_plain, read_record, write_record, write_whole

if TYPE_CHECKING:
    from toolkit.evaluation.grid import Comparison

FOLDER, LAST, SCORES = "heads", "last.json", "left-out"
QUERIES = 2_000
"""At most this many training images decide `far_beyond`."""
FAR = 0.99


@dataclass(frozen=True)
class HeadRecord:
    """What a kept head is: which encoder it needs and how to load it, what it was fitted on, and its figures.

    `weights` is what `--pretrained` takes, `train_groups` are the categories (or other groups) that it was trained on,
    `tests` has accuracy, interval, images and recalls of each test set, `choice` (JSON) is what it chose. Images
    farther than the cosine distance `far_beyond` from all training images are reported as far. `vectors` says where the
    training vectors of a head that keeps them are stored: in the `cache`, or in the `file` itself. `equalise` are the
    steps that its pictures went through (`data.equalise`), and that others must go through to be predicted.
    """

    VERSION: ClassVar[int] = 2

    key: str
    head: str
    encoder: EncoderRecord
    weights: str
    labels: Labels
    dataset: str
    held_out: str
    by: str
    seed: int
    train_groups: tuple[str, ...]
    train_rows: int
    chosen_by: str
    choice: str
    code_version: str
    tests: Mapping[str, Mapping[str, Any]]
    rows_file: str
    rows_sha256: str
    far_beyond: float | None
    vectors: str = "file"
    file_sha256: str = ""
    equalise: str | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "HeadRecord":
        """The record from JSON; one written by version 1 is converted.

        Raises CacheError for missing or unknown fields.
        """
        if "version" not in plain:
            known = {field.name for field in fields(cls)}
            new = {name: value for name, value in plain.items() if name in known}
            new["encoder"] = as_plain(EncoderRecord.of(plain.get("encoder_record", {})))
            del new["encoder"]["version"]
            new["labels"] = asdict(Labels(tuple(plain.get("labels", ())), (plain.get("labels") or [None])[-1]))
            new |= {"version": cls.VERSION, "by": CATEGORY, "train_groups": plain.get("train_categories", [])}
            plain = new
        plain = {"equalise": None, **plain}  # heads of earlier versions lack it
        return of_plain(cls, plain, f"the head {plain.get('key')}")


@dataclass(frozen=True)
class KeptHead:
    """One stored head of a comparison: its folder and its record."""

    folder: Path
    record: HeadRecord

    @property
    def key(self) -> str:
        """The name of its files."""
        return self.record.key


def keep(
    folder: Path,
    comparison: "Comparison",
    split: Split,
    caches: Iterable[Cache],
    source: Source,
    labels: Labels,
    equalise: str | None = None,
) -> None:
    """Store the heads of one comparison, replacing those of an equal comparison. Raises CacheError if that fails.

    `source` is the base encoder's source. Only heads on the encoders of `caches` are stored. A head whose state cannot
    be stored without code is left out; `predict` cannot use it. If labels are held out, a head predicts only the labels
    that it was trained on, so its test images are the base ones.
    """
    from toolkit.heads.base import unit

    tests = {"base": split.base} if split.new_labels else split.tests()
    table = comparison.table.filter(pl.col("test").is_in(list(tests)))
    rows, keys = _rows({"train": split.train, **tests}), split.train["sha256"].to_list()
    digest = hashlib.sha256(rows).hexdigest()
    facts: dict[str, Any] = {
        "weights": str(source.file) if source.file and source.pretrained != "shipped" else source.pretrained,
        "labels": labels,
        "equalise": equalise,
        "by": split.by,
        "train_groups": tuple(sorted(set(split.train["group"].drop_nulls()))),
        "rows_file": f"rows-{digest[:16]}.parquet",
        "rows_sha256": digest,
    }
    _write_file(folder / facts["rows_file"], rows)
    for cache in caches:
        identity, training = cache.record.identity, unit(cache.read_images(keys))
        facts |= {"encoder": cache.record, "far_beyond": far_beyond(training)}
        for name in [name for of, name in comparison.heads if of == identity]:
            record = HeadRecord(**facts, **_scores(table, identity, name))
            _write(folder, comparison.heads[identity, name], training, record)


def _write(folder: Path, head: Any, training: np.ndarray, record: HeadRecord) -> None:
    """Write a head's two files. Training vectors that it keeps are not stored again if they are those in the cache."""
    from toolkit.heads import stored

    try:
        with stored.without_vectors(head, lambda: training) as in_cache:
            data = stored.to_bytes(head)
    except TypeError:
        return
    _write_file(folder / f"{record.key}.safetensors", data)
    where = "cache" if in_cache else "file"
    record = replace(record, vectors=where, file_sha256=hashlib.sha256(data).hexdigest())
    _write_record(folder / f"{record.key}.json", as_plain(record))


def _write_file(path: Path, data: bytes) -> None:
    """Write the file unless it has these bytes already: comparing again gives equal bytes, and syncing is slow."""
    if not (path.exists() and path.read_bytes() == data):
        write_whole(path, data)


def _write_record(path: Path, record: dict[str, Any]) -> None:
    try:
        same = path.exists() and read_record(path) == json.loads(json.dumps(record))
    except CacheError:
        same = False
    if not same:
        write_record(path, record)


def remember_last(folder: Path, comparisons: "Iterable[Comparison]") -> None:
    """Record which heads the last `compare` fitted; `pick.best` chooses among them."""
    keys = {_key(row) for comparison in comparisons for row in comparison.table.iter_rows(named=True)}
    _write_record(folder / LAST, {"heads": sorted(keys)})


def far_beyond(vectors: np.ndarray) -> float | None:
    """The cosine distance beyond which an image is far from all training images, whose vectors are `[N, D]`.

    It is the 99th percentile of the distances of training images to their nearest other one, over at most `QUERIES` of
    them, evenly spaced. None for fewer than two images.
    """
    if len(vectors) < 2:
        return None
    queries = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), QUERIES)).astype(int)]
    return float(np.quantile(nearest(vectors, queries, itself=True), FAR))


def nearest(vectors: np.ndarray, queries: np.ndarray, itself: bool = False) -> np.ndarray:
    """The cosine distance of each of `queries` `[Q, D]` to the nearest of `vectors` `[N, D]`: `[Q]` float64.

    `itself`: each query is one of the vectors, and does not count as its own neighbour.
    """
    from toolkit.heads.base import unit
    from toolkit.heads.neighbours import search

    similarities, _ = search(unit(vectors), unit(queries), 2 if itself else 1)
    return np.maximum(1.0 - similarities[:, -1].astype(np.float64), 0.0)


def find(folder: Path) -> list[KeptHead]:
    """Every stored head with an undamaged record."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            plain = read_record(path)
            if plain.get("key") == path.stem:
                found.append(KeptHead(folder, HeadRecord.of(plain)))
        except CacheError:
            continue
    return found


def load(kept: KeptHead, cache: Cache) -> Any:
    """The fitted head. Raises ResultsError if its file is missing, damaged or cannot be trusted, and, for a head whose
    training vectors are in the cache, what `vectors_of` raises."""
    from toolkit.heads import stored
    from toolkit.heads.base import unit

    path = kept.folder / f"{kept.key}.safetensors"
    head = stored.from_bytes(_checked(path, kept.record.file_sha256), str(path))
    if kept.record.vectors == "cache":
        head.vectors_ = unit(vectors_of(training_rows(kept), cache))
    return head


def vectors_of(rows: pl.DataFrame, cache: Cache) -> np.ndarray:
    """The vectors `[N, D]` float32 of rows of the head's comparison. Raises MissingEmbeddings."""
    try:
        return cache.read_images(rows["sha256"].to_list())
    except MissingEmbeddings as error:
        raise MissingEmbeddings(
            f"The cache {cache.folder} no longer holds the images of this head's comparison: run python cli.py embed "
            f"(for a fine-tuned encoder, finetune) on that data again."
        ) from error


def training_rows(kept: KeptHead) -> pl.DataFrame:
    """The images that the head was trained on: sha256, label, category."""
    return rows_of(kept).filter(pl.col("role") == "train").drop("role")


def remembered_scores(kept: KeptHead) -> np.ndarray | None:
    """The scores `[N, labels]` stored by `remember_scores` for exactly this head, or None."""
    record = record_if_whole(kept.folder / f"{kept.key}.{SCORES}.json", "training images are scored again")
    if record is None or record["head"] != _content(kept):
        return None
    scores = np.array(record["scores"])
    return scores if scores.ndim == 2 else None  # earlier versions stored P of one label


def remember_scores(kept: KeptHead, scores: np.ndarray) -> None:
    """Store the scores `[N, labels]` of training images under cross-validation. A failure to write is no
    error: they are then computed again."""
    try:
        write_record(kept.folder / f"{kept.key}.{SCORES}.json", {"head": _content(kept), "scores": scores.tolist()})
    except CacheError:
        return


def _content(kept: KeptHead) -> list[str]:
    """Hashes that identify a head: its encoder, its file and its rows."""
    return [kept.record.encoder.identity, kept.record.file_sha256, kept.record.rows_sha256]


def rows_of(kept: KeptHead) -> pl.DataFrame:
    """The images of the head's comparison: sha256, label, category, role (`train`, `base`, `novel`).

    Raises ResultsError if the file is missing or damaged.
    """
    return pl.read_parquet(io.BytesIO(_checked(kept.folder / kept.record.rows_file, kept.record.rows_sha256)))


def _checked(path: Path, expected_sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise ResultsError(f"{path} is missing or damaged: run python cli.py compare again, which writes it again.")
    return data


def _rows(parts: Mapping[str, pl.DataFrame]) -> bytes:
    """A Parquet file with the SHA-256, label, category and role of each image."""
    named = [rows.select("sha256", "label", category="group", role=pl.lit(role)) for role, rows in parts.items()]
    data = io.BytesIO()
    pl.concat(named).write_parquet(data)
    return data.getvalue()


def _scores(table: pl.DataFrame, identity: str, head: str) -> dict[str, Any]:
    """The fields of a record that come from the results table: key, names, and figures on each test set."""
    mine = columns.ordinary(table).filter((pl.col("encoder_id") == identity) & (pl.col("head") == head))
    tests = {}
    for (test,), rows in mine.group_by("test", maintain_order=True):
        row = rows.row(0, named=True)
        recalls = {one["class"]: one["recall"] for one in rows.iter_rows(named=True) if one["class"] != "all"}
        images = sum(one["support"] for one in rows.iter_rows(named=True) if one["class"] != "all")
        figures = {name: row[name] for name in ("accuracy", "accuracy_low", "accuracy_high")}
        tests[str(test)] = {**figures, "images": images, "recall": recalls}
    row = mine.row(0, named=True)
    names = ("dataset", "held_out", "seed", "head", "chosen_by", "train_rows", "choice", "code_version")
    return {"key": _key(row), **{name: row[name] for name in names}, "tests": tests}


def _key(row: Mapping[str, Any]) -> str:
    """A hash of 16 hex characters over the columns that identify a head."""
    parts = [row[name] for name in columns.KEY if name not in (*columns.TEST, columns.ADAPTED)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
