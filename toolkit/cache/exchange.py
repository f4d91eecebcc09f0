"""Vectors of other tools into the cache, and the cache's vectors out of it.

Other tools name images by path, or by SHA-256 (hex). Imported vectors become an encoder of their own, without a model:
its heads are fitted and compared from the cache alone. What cannot be proven of them is said in `Imported.unproven`.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.data.manifest import Dataset, Progress, by_reason, escape, hash_rows, reasons
from toolkit.data.sources.resolve import Names
from toolkit.encoders.record import IMPORTED, EncoderRecord
from toolkit.errors import CacheError, DataError, first_line

UNIT = 2e-3
"""The most by which the length of a vector of unit length, stored in half precision, differs from 1."""
SHA256 = re.compile(r"[0-9a-f]{64}")
KEYS = ("sha256", "image_path", "path", "paths", "key", "keys", "filename", "file_name", "filepath", "image", "name")
"""Names of the column or array that says which image a vector belongs to, the most reliable first."""
TAKEN = (
    "takes clip-retrieval's output folder (img_emb/*.npy, metadata/*.parquet), an .npz, a Parquet with vectors, or an "
    ".npy with a Parquet of the same name beside it"
)


@dataclass(frozen=True)
class Vectors:
    """Vectors `[N, D]` float32, and which image each belongs to `[N]`: a path, a WebDataset key or a SHA-256."""

    keys: list[str]
    vectors: np.ndarray


@dataclass(frozen=True)
class Imported:
    """What an import did: vectors stored now, those that were in the cache, and what was wrong.

    `problems` (path, reason) has each row that was not stored, and each image of the data without a vector.
    """

    record: EncoderRecord
    stored: int
    present: int
    problems: pl.DataFrame
    unproven: str

    def by_reason(self) -> list[dict[str, object]]:
        """The problems as dicts of reason, count and one example, the most frequent first."""
        return by_reason(self.problems)


def read_vectors(place: Path) -> Vectors:
    """The vectors that another tool wrote. Raises DataError."""
    try:
        if (place / "img_emb").is_dir():
            return _of_clip_retrieval(place)
        if place.suffix == ".npz":
            with np.load(place) as arrays:  # pickled objects are refused
                return _picked({name: arrays[name] for name in arrays.files}, place)
        if place.suffix == ".parquet":
            return _picked(_arrays(pl.read_parquet(place)), place)
        if place.suffix == ".npy":
            return _pair(place, place.with_suffix(".parquet"))
    except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{place} cannot be read as vectors: {first_line(error)}.") from error
    raise DataError(f"There are no vectors at {place}: cache import {TAKEN}.")


def _of_clip_retrieval(folder: Path) -> Vectors:
    """`img_emb/img_emb_N.npy` and `metadata/metadata_N.parquet`, as clip-retrieval's writer names them."""
    parts = []
    for vectors in sorted((folder / "img_emb").glob("*.npy")):
        number = vectors.stem.rsplit("_", 1)[-1]
        parts.append(_pair(vectors, folder / "metadata" / f"metadata_{number}.parquet"))
    if not parts:
        raise DataError(f"There are no .npy files in {folder / 'img_emb'}.")
    return Vectors([key for part in parts for key in part.keys], np.concatenate([part.vectors for part in parts]))


def _pair(vectors: Path, table: Path) -> Vectors:
    if not table.exists():
        raise DataError(f"{table} is missing: it says which image each row of {vectors} belongs to.")
    columns = {name: array for name, array in _arrays(pl.read_parquet(table)).items() if array.ndim == 1}
    return _picked({"vectors": np.load(vectors), **columns}, vectors)


def _arrays(table: pl.DataFrame) -> dict[str, np.ndarray]:
    """The columns of text as arrays of objects `[N]`, those of lists of floats as `[N, D]`; a null list becomes NaN."""
    found = {}
    for name, kind in table.schema.items():
        if kind == pl.String:
            found[name] = table[name].fill_null("").to_numpy().astype(object)
        elif isinstance(kind, pl.List | pl.Array) and kind.inner.is_float():
            lists = table[name].cast(pl.List(pl.Float32))
            lengths = lists.drop_nulls().list.len().unique()
            if len(lengths) == 1:
                found[name] = lists.cast(pl.Array(pl.Float32, lengths[0])).to_numpy()
    return found


def _picked(arrays: dict[str, np.ndarray], place: Path) -> Vectors:
    """The one matrix, and the texts that say which images its rows are."""
    matrices = [name for name, one in arrays.items() if one.ndim == 2 and np.issubdtype(one.dtype, np.floating)]
    texts = {name.lower(): name for name, one in arrays.items() if one.ndim == 1 and one.dtype.kind in "OUS"}
    there = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    if len(matrices) != 1:
        raise DataError(f"{place} needs one matrix of vectors and has {len(matrices)}: {there or 'nothing'}.")
    named = next((texts[name] for name in KEYS if name in texts), None)
    if named is None:
        raise DataError(f"{place} does not say which images its rows are: {there}. Name that {' or '.join(KEYS[:4])}.")
    vectors, keys = arrays[matrices[0]], [_text(key) for key in arrays[named]]
    if len(vectors) != len(keys):
        raise DataError(f"{place} has {len(vectors):,} vectors and {len(keys):,} values of {named}.")
    return Vectors(keys, np.ascontiguousarray(vectors, dtype=np.float32))


def _text(key: object) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)


def import_vectors(
    found: Vectors,
    dataset: Dataset,
    root: Path,
    name: str,
    normalised: bool = False,
    dimension: int | None = None,
    on_progress: Progress | None = None,
) -> Imported:
    """Store `found` in the cache `root` as the encoder `name`, under the SHA-256 of the images in `dataset`.

    A row is matched by its SHA-256, or by its path (`resolve.Names`; a WebDataset key, by a unique file name without
    suffix). `normalised` says that the vectors have unit length, which is checked, and `dimension` how long they must
    be. Rows with NaN, rows of no image, and images with several different vectors are not stored but reported. Raises
    DataError where the vectors are not as told or none fits, and CacheError where the name is taken or the encoder has
    other vectors.
    """
    _check(found, normalised, dimension)
    keys, problems = _matched(found, dataset, on_progress)
    record = record_of(name, found.vectors.shape[1], normalised)
    _require_one_of_its_name(root, record)
    rows = _once(keys, found, problems)
    if not rows:
        why = "; ".join(f"{one['count']:,} {one['reason']} ({one['example']})" for one in by_reason(reasons(problems)))
        raise DataError(f"None of {len(found.keys):,} vectors fits an image of {dataset.name}: {why}.")
    cache = Cache(root, record)
    missing = set(cache.missing_images(list(rows)))
    old = [key for key in rows if key not in missing]
    if old and not np.array_equal(cache.read_images(old), found.vectors[[rows[key] for key in old]]):
        raise CacheError(
            f"{name} has other vectors of the same images: choose another --name, or first run python cli.py cache "
            f"remove {record.identity}."
        )
    if new := [key for key in rows if key in missing]:
        cache.append_images(new, found.vectors[[rows[key] for key in new]])
    by_path = any(not SHA256.fullmatch(key) for key in found.keys)
    return Imported(record, len(new), len(old), reasons(problems), _unproven(by_path))


def record_of(name: str, dimension: int, normalised: bool) -> EncoderRecord:
    """The record of imported vectors. They have no weights to be identified by, so the identity is what was told."""
    told = {"imported": True, "normalised": normalised}
    identity = hashlib.sha256(json.dumps([IMPORTED, name, dimension, told]).encode()).hexdigest()[:16]
    return EncoderRecord(
        identity=identity,
        model=name,
        pretrained=IMPORTED,
        dimension=dimension,
        has_text=False,
        preprocessing=told,
        known_as=(f"{name} ", f"{name} {IMPORTED}"),  # --model NAME, with or without --pretrained imported
    )


def _require_one_of_its_name(root: Path, record: EncoderRecord) -> None:
    for other in find_encoders(root, lambda one: one.model == record.model and one.identity != record.identity):
        told = ", normalised" if other.preprocessing.get("normalised") else ""
        raise CacheError(
            f"{record.model} is the name of another encoder in the cache ({other.pretrained}, {other.dimension} numbers"
            f" a vector{told}): choose another --name, or first run python cli.py cache remove {other.identity}."
        )


def _unproven(by_path: bool) -> str:
    more = ", and that each vector is of the image that its path names today" if by_path else ""
    return f"Taken on trust: the weights, preprocessing and precision behind these vectors{more}."


def _check(found: Vectors, normalised: bool, dimension: int | None) -> None:
    if dimension is not None and found.vectors.shape[1] != dimension:
        raise DataError(f"The vectors have {found.vectors.shape[1]} numbers each, not --dimension {dimension}.")
    if not normalised:
        return
    lengths = np.linalg.norm(found.vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(np.isfinite(lengths) & (np.abs(lengths - 1) > UNIT))
    if len(wrong):
        first = f"the first, {found.keys[wrong[0]]}, has length {lengths[wrong[0]]:.3f}"
        raise DataError(f"{len(wrong):,} vectors are not normalised ({first}): leave --normalised out.")


def _matched(
    found: Vectors, dataset: Dataset, on_progress: Progress | None
) -> tuple[list[str | None], list[tuple[str, str]]]:
    """The SHA-256 of each row's image, None for a row without one; and (path, reason) of what does not match."""
    finder = _Finder(dataset.rows["path"].to_list())
    by_hash = [bool(SHA256.fullmatch(key)) for key in found.keys]
    paths = [None if known else finder.find_any(key) for key, known in zip(found.keys, by_hash, strict=True)]
    wanted = dataset.rows if any(by_hash) else dataset.rows.filter(pl.col("path").is_in([p for p in paths if p]))
    hashed = hash_rows(dataset, wanted, on_progress)
    of_path = dict(hashed.drop_nulls("sha256").select("path", "sha256").iter_rows())
    in_data = set(of_path.values())
    keys = [
        of_path.get(path) if path else key if known and key in in_data else None
        for key, path, known in zip(found.keys, paths, by_hash, strict=True)
    ]
    problems = [
        (escape(key), "vectors of unreadable images" if path else "vectors of no image in the data")
        for key, path, sha256 in zip(found.keys, paths, keys, strict=True)
        if sha256 is None
    ]
    have = {sha256 for sha256 in keys if sha256 is not None}
    without = [path for path in dataset.rows["path"] if of_path.get(path) not in have]
    return keys, [*problems, *((path, "images without a vector") for path in without)]


class _Finder(Names):
    """Also finds paths below other folders, and WebDataset keys: file names without a suffix."""

    def __init__(self, names: Sequence[str]):
        super().__init__(names)
        self.stems: dict[str, list[str]] = {}
        for name in names:
            self.stems.setdefault(PurePosixPath(name).stem, []).append(name)

    def find_any(self, key: str) -> str | None:
        stem = self.stems.get(escape(key), [])
        return self.find(key) or self.find(f"/{key}") or (stem[0] if len(stem) == 1 else None)


def _once(keys: Sequence[str | None], found: Vectors, problems: list[tuple[str, str]]) -> dict[str, int]:
    """SHA-256 -> the row to store. Adds to `problems` the rows with NaN and those that contradict another row."""
    finite = np.isfinite(found.vectors).all(axis=1)
    rows: dict[str, int] = {}
    contradicted: set[str] = set()
    for row, key in enumerate(keys):
        if key is None:
            continue
        if not finite[row]:
            problems.append((escape(found.keys[row]), "vectors with NaN or infinity"))
        elif key in rows and not np.array_equal(found.vectors[rows[key]], found.vectors[row]):
            contradicted.add(key)
            problems.append((escape(found.keys[row]), "vectors that differ from an earlier one of the same image"))
        else:
            rows.setdefault(key, row)
    return {key: row for key, row in rows.items() if key not in contradicted}


def export_vectors(
    cache: Cache, target: Path, dataset: Dataset | None = None, on_progress: Progress | None = None
) -> int:
    """Write an encoder's vectors to `target`; returns their number. Raises CacheError where it cannot be written.

    `x.parquet` gets the columns sha256 and vector (Array of float32). `x.npy` gets the vectors `[N, D]` float32, and
    `x.parquet` beside it the rest. With `dataset`, only its images are written, with path, label and split.
    """
    rows = pl.DataFrame({"sha256": cache.image_keys()}, schema={"sha256": pl.String})
    if dataset is not None:
        named = hash_rows(dataset, dataset.rows, on_progress).select(
            "path", pl.col("label", "split").cast(pl.String), "sha256"
        )
        rows = named.join(rows, on="sha256", maintain_order="left")
    vectors = cache.read_images(rows["sha256"].to_list())
    table = target.with_suffix(".parquet")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".npy":
            np.save(target, vectors)
        else:
            rows = rows.with_columns(vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, cache.record.dimension)))
        rows.write_parquet(table)
    except OSError as error:
        raise CacheError(f"Cannot write {target}: {error.strerror}.") from error
    return len(rows)
