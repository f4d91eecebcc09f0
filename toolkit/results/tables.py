"""The results folder: the tidy table and the predictions, as Parquet, CSV and a workbook, written atomically.

Each Parquet file has a checksum of its content and checksums of the CSV and workbook beside it, so that a damaged or
edited file is renamed before it is replaced. `compare` restores lost rows from the cache.
"""

import hashlib
import io
import itertools
import json
import logging
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
from filelock import FileLock

from toolkit.data.sources.columns import FORMULA_STARTS
from toolkit.errors import CacheError, ResultsError, listed
from toolkit.evaluation import columns
from toolkit.evaluation.scoring import rescore, with_harmonic_mean, with_p_best
from toolkit.heads import HEADS
from toolkit.results import version_1
from toolkit.results.studies import with_studies
from toolkit.results.workbook import workbook_bytes
from toolkit.storage.records import write_whole

RESULTS, PREDICTIONS, SKIPPED = "results", "predictions", "skipped.csv"
EXPECTED = {RESULTS: columns.RESULTS, PREDICTIONS: columns.PREDICTIONS}
CHECKSUM, BESIDE = "toolkit_sha256", "toolkit_files_sha256"
WHERE = ("dataset", "held_out", "encoder", "head", *columns.TEST, columns.ADAPTED)

log = logging.getLogger(__name__)


def store(folder: Path, table: pl.DataFrame, predictions: pl.DataFrame) -> list[str]:
    """Store a comparison's rows in the folder's files. They replace rows of the same comparison; other rows stay.

    `p_best` is recomputed among all rows scored on the same images. Safe with concurrent processes. Returns a line for
    each damaged file. Raises ResultsError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".results.lock"):
            old_table, bad = _read_or_set_aside(folder, RESULTS)
            old_predictions, also_bad = _read_or_set_aside(folder, PREDICTIONS)
            changed = _set_aside_changed(folder)
            old_table, old_predictions = version_1.brought_up_to_date(old_table, old_predictions)
            rows, every = with_studies(upsert(old_table, table), upsert(old_predictions, predictions))
            every = in_order(every)
            _write(folder, with_p_best(in_order(rows), every), every)
    except (OSError, CacheError) as error:
        raise ResultsError(f"Cannot write the results folder {folder}: {error}") from error
    log.info("%s: %d rows and %d predictions of this comparison", folder, len(table), len(predictions))
    return bad + also_bad + changed


def read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The results and the predictions of a folder. Raises ResultsError if they are missing or damaged."""
    table, predictions = (_read_one(folder / f"{name}.parquet", EXPECTED[name]) for name in (RESULTS, PREDICTIONS))
    return version_1.brought_up_to_date(table, predictions)


def read_predictions(place: Path) -> pl.DataFrame:
    """The predictions of a results folder, or of a file like its `predictions.parquet`. Raises ResultsError."""
    file = place / f"{PREDICTIONS}.parquet" if place.is_dir() else place
    return _read_one(file, EXPECTED[PREDICTIONS])


def upsert(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """`new`, and the rows of `old` whose key (`columns.KEY`) is not in `new`."""
    kept = old.join(new.select(columns.KEY).unique(), on=columns.KEY, how="anti", nulls_equal=True)
    return pl.concat([kept, new])


def other_images(folder: Path) -> pl.DataFrame:
    """The images of other test data in the stored predictions: test_data, path, sha256. Empty where nothing is."""
    try:
        stored = _read_one(folder / f"{PREDICTIONS}.parquet", EXPECTED[PREDICTIONS])
    except ResultsError:
        stored = pl.DataFrame(schema=columns.schema(EXPECTED[PREDICTIONS]))
    return stored.filter(pl.col("test_data") != "").select("test_data", "path", "sha256").unique()


def free_name(stored: pl.DataFrame, name: str, images: pl.DataFrame) -> str:
    """`name`, or the first of `name 2`, `name 3`, … under which `stored` (`other_images`) has nothing but `images`
    (columns path, sha256) or more of the same."""
    for free in chain([name], (f"{name} {number}" for number in count(2))):
        known = stored.filter(pl.col("test_data") == free).select("path", old="sha256")
        shared = images.join(known, on="path")
        if known.is_empty() or (len(shared) and bool((shared["sha256"] == shared["old"]).all())):
            return free
    raise AssertionError("unreachable")


def in_order(table: pl.DataFrame) -> pl.DataFrame:
    """Results or predictions in an order independent of when they were computed; classes and images keep their
    order."""
    head = pl.col("head").replace_strict({name: i for i, name in enumerate(HEADS)}, default=len(HEADS))
    by = [*columns.COMPARISON, "encoder", "recipe", "encoder_id", head, "head", "chosen_by", *columns.TEST]
    by.append(columns.ADAPTED)
    return table.sort(by, nulls_last=True, maintain_order=True)


def write_skipped(folder: Path, skipped: pl.DataFrame) -> None:
    """Write files that are not used (columns path, reason) to `skipped.csv`; remove it if there are none."""
    if len(skipped):
        write_whole(folder / SKIPPED, csv_bytes(skipped))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)


def verify(folder: Path) -> list[str]:
    """Recompute every row of the results from the predictions; returns a line for each that differs.

    Predictions that have no row in the results get a line, too. Raises what `read` raises.
    """
    table, predictions = read(folder)
    names = [*columns.KEY, "class"]
    scored = pl.DataFrame(rescore(table, predictions), schema=table.schema)
    again = with_harmonic_mean(with_p_best(scored, predictions))
    joined = table.join(again, on=names, how="full", nulls_equal=True, suffix="_again", coalesce=True)
    given = (*columns.TIMES, "margin")
    figures = [name for name, (kind, _) in columns.RESULTS.items() if kind == pl.Float64 and name not in given]
    figures.append("support")
    lines = []
    for row in joined.iter_rows(named=True):
        earlier = [name for name in columns.LATER if row[name] is None]
        wrong = [name for name in figures if name not in earlier and not _equal(row[name], row[f"{name}_again"])]
        if wrong:
            lines.append(f"{_where(row, 'class')}: {', '.join(wrong)}")
    orphans = predictions.join(table, on=columns.KEY, how="anti", nulls_equal=True)
    for row in orphans.unique(columns.KEY, maintain_order=True).iter_rows(named=True):
        lines.append(f"{_where(row)}: there are predictions, but no results")
    return lines


def _where(row: dict[str, Any], *more: str) -> str:
    return " / ".join(str(row[name]) for name in (*WHERE, *more) if row[name] != "")


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is None and second is None
    return abs(first - second) <= 1e-12 or (first != first and second != second)


def _write(folder: Path, table: pl.DataFrame, predictions: pl.DataFrame) -> None:
    """Predictions are written first: if the process dies in between, no result is without its predictions."""
    for name, frame in ((PREDICTIONS, predictions), (RESULTS, table)):
        beside = {f"{name}.csv": csv_bytes(frame)}
        if name == RESULTS:
            beside[f"{name}.xlsx"] = workbook_bytes(frame, predictions)
        write_whole(folder / f"{name}.parquet", parquet_bytes(frame, beside))
        for file, data in beside.items():
            write_whole(folder / file, data)


def parquet_bytes(frame: pl.DataFrame, beside: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """A Parquet file with checksums in its metadata: of its own content, as Parquet has none over a whole file, and of
    the files `beside` it."""
    data = io.BytesIO()
    files = json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in beside.items()})
    frame.write_parquet(data, metadata={CHECKSUM: _content_hash(frame), BESIDE: files})
    return data.getvalue()


def _set_aside_changed(folder: Path) -> list[str]:
    """Rename a CSV or workbook that was damaged or edited since it was written, so that it is kept."""
    lines = []
    for path in (folder / f"{PREDICTIONS}.parquet", folder / f"{RESULTS}.parquet"):
        written = pl.read_parquet_metadata(path).get(BESIDE, "{}") if path.exists() else "{}"
        for name, checksum in json.loads(written).items():
            file = folder / name
            if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
                kept = _aside(file)
                lines.append(f"{file} was not as it had been written, is set aside as {kept.name}, and made anew.")
    return lines


def _aside(file: Path) -> Path:
    """Rename a file that somebody may want back -> its new place, which replaces none that was set aside before."""
    names = (f"{file.name}.damaged{f'-{number}' if number else ''}" for number in itertools.count())
    place = next(place for place in map(file.with_name, names) if not place.exists())
    file.replace(place)
    return place


def _content_hash(frame: pl.DataFrame) -> str:
    lists = _lists(frame)
    digest = hashlib.sha256(frame.drop(lists).write_csv().encode())
    for name in lists:  # a hundred labels' probabilities as text would take ten times as long
        digest.update(frame[name].list.len().fill_null(0).to_numpy().tobytes())
        digest.update(frame[name].explode().to_numpy().tobytes())
    return digest.hexdigest()


def _lists(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists of numbers as JSON, since a CSV has no lists."""
    lists = _lists(frame)
    return frame.with_columns(
        pl.format("[{}]", pl.col(name).cast(pl.List(pl.String)).list.join(", ")).alias(name) for name in lists
    )


def csv_bytes(frame: pl.DataFrame) -> bytes:
    """Put an apostrophe before text that a spreadsheet would take for a formula; numbers stay numbers."""
    guarded = [
        pl.when(pl.any_horizontal([pl.col(name).str.starts_with(start) for start in FORMULA_STARTS]))
        .then("'" + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name, kind in frame.schema.items()
        if kind == pl.String
    ]
    return _flat(frame).with_columns(guarded).write_csv().encode()


def _read_one(path: Path, expected: dict[str, Any]) -> pl.DataFrame:
    if not path.exists():
        raise ResultsError(f"There is no {path}: run python cli.py compare first.")
    data = path.read_bytes()  # what cannot be read now is not damaged
    try:
        frame = pl.read_parquet(io.BytesIO(data))
        whole = pl.read_parquet_metadata(io.BytesIO(data)).get(CHECKSUM) == _content_hash(frame)
        frame = columns.brought_up_to_date(frame, expected)
        known = frame.schema == pl.Schema(columns.schema(expected))
    except MemoryError:
        raise
    except (Exception, pl.exceptions.PanicException):  # a damaged Parquet makes Polars raise or panic
        whole = known = False
    if not whole or not known:
        why = "damaged" if not whole else "of another version's columns"
        raise ResultsError(f"{path} is {why}: run python cli.py compare again, which sets it aside and makes it anew.")
    return frame


def _read_or_set_aside(folder: Path, name: str) -> tuple[pl.DataFrame, list[str]]:
    """A stored frame; if its file is damaged or missing, no rows, and a line that says what to run."""
    path, expected = folder / f"{name}.parquet", EXPECTED[name]
    was = "damaged" if path.exists() else "gone"
    try:
        return _read_one(path, expected), []
    except ResultsError:
        lost = [_aside(file) for file in map(path.with_suffix, (".parquet", ".csv", ".xlsx")) if file.exists()]
    names = listed([file.name for file in lost])
    line = f"{path} was {was}; set aside: {names}. For the rows of other comparisons run python cli.py compare again."
    return pl.DataFrame(schema=columns.schema(expected)), [line] if lost else []
