"""The results folder: the tidy table and the predictions, as Parquet, CSV and a workbook, whole or not at all."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from toolkit import columns
from toolkit.errors import CacheError, ResultsError
from toolkit.records import write_whole
from toolkit.workbook import workbook_bytes

RESULTS, PREDICTIONS, SKIPPED = "results", "predictions", "skipped.csv"
CHECKSUM = "toolkit_sha256"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
HEAD_ORDER = ("zero-shot", "logreg", "knn")


def store(folder: Path, table: pl.DataFrame, predictions: pl.DataFrame) -> list[str]:
    """Put a comparison's rows into the folder's files, in place of those of the same comparison; the others stay.

    Safe beside other processes. Returns one line for each old file that was damaged and set aside. Raises ResultsError
    where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".results.lock"):
            old_table, bad = _read_or_set_aside(folder, RESULTS)
            old_predictions, also_bad = _read_or_set_aside(folder, PREDICTIONS)
            _write_predictions(folder, upsert(old_predictions, predictions))
            _write_results(folder, in_order(upsert(old_table, table)))
    except (OSError, CacheError) as error:
        raise ResultsError(f"Cannot write the results folder {folder}: {error}") from error
    return bad + also_bad


def read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The results and the predictions of a folder. Raises ResultsError where they are missing or damaged."""
    return _read_one(folder / f"{RESULTS}.parquet", columns.RESULTS), _read_one(
        folder / f"{PREDICTIONS}.parquet", columns.PREDICTIONS
    )


def upsert(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """`new`, and those rows of `old` whose key (`columns.KEY`) is not in `new`."""
    kept = old.join(new.select(columns.KEY).unique(), on=columns.KEY, how="anti", nulls_equal=True)
    return pl.concat([kept, new])


def in_order(table: pl.DataFrame) -> pl.DataFrame:
    """The table's rows in an order that does not depend on when they were computed; classes stay in their own."""
    head = pl.col("head").replace_strict({name: i for i, name in enumerate(HEAD_ORDER)}, default=len(HEAD_ORDER))
    by = [*columns.COMPARISON, "encoder", "recipe", "encoder_id", head, "head", "chosen_by", "test"]
    return table.sort(by, nulls_last=True, maintain_order=True)


def write_skipped(folder: Path, skipped: pl.DataFrame) -> None:
    """List the images that could not be read (columns path, sha256, reason) in `skipped.csv`; remove it if none."""
    if len(skipped):
        write_whole(folder / SKIPPED, _csv(skipped))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)


def verify(folder: Path, score: Callable[[pl.DataFrame, pl.DataFrame], list[dict[str, Any]]]) -> list[str]:
    """Recompute every row of the results from the predictions by `score` -> a line for each that differs."""
    table, predictions = read(folder)
    names = [*columns.KEY, "class"]
    again = pl.DataFrame(score(table, predictions), schema={n: table.schema[n] for n in table.columns})
    metrics = [name for name, (kind, _) in columns.RESULTS.items() if kind == pl.Float64 and name != "p_best"]
    joined = table.join(again, on=names, how="full", nulls_equal=True, suffix="_again", coalesce=True)
    lines = []
    for row in joined.iter_rows(named=True):
        wrong = [m for m in [*metrics, "support"] if not _equal(row[m], row[f"{m}_again"])]
        if wrong:
            where = " / ".join(str(row[name]) for name in ("dataset", "held_out", "encoder", "head", "test", "class"))
            lines.append(f"{where}: {', '.join(wrong)}")
    return lines


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is None and second is None
    return abs(first - second) <= 1e-12 or (first != first and second != second)


def _write_results(folder: Path, table: pl.DataFrame) -> None:
    write_whole(folder / f"{RESULTS}.parquet", _parquet(table))
    write_whole(folder / f"{RESULTS}.csv", _csv(table))
    write_whole(folder / f"{RESULTS}.xlsx", workbook_bytes(table))


def _write_predictions(folder: Path, predictions: pl.DataFrame) -> None:
    write_whole(folder / f"{PREDICTIONS}.parquet", _parquet(predictions))
    write_whole(folder / f"{PREDICTIONS}.csv", _csv(predictions))


def _parquet(frame: pl.DataFrame) -> bytes:
    """Parquet keeps no checksum over all of a file, so the content's goes into its metadata."""
    data = io.BytesIO()
    frame.write_parquet(data, metadata={CHECKSUM: _content_hash(frame)})
    return data.getvalue()


def _content_hash(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


def _csv(frame: pl.DataFrame) -> bytes:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers are numbers."""
    guarded = [
        pl.when(pl.any_horizontal([pl.col(name).str.starts_with(start) for start in FORMULA_STARTS]))
        .then("'" + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name, kind in frame.schema.items()
        if kind == pl.String
    ]
    return frame.with_columns(guarded).write_csv().encode()


def _read_one(path: Path, expected: dict[str, Any]) -> pl.DataFrame:
    if not path.exists():
        raise ResultsError(f"There is no {path}: run python cli.py compare first.")
    try:
        data = path.read_bytes()
        frame = pl.read_parquet(io.BytesIO(data))
        whole = pl.read_parquet_metadata(io.BytesIO(data)).get(CHECKSUM) == _content_hash(frame)
        known = frame.schema == pl.Schema(columns.schema(expected))
    except BaseException as error:  # a damaged Parquet makes Polars raise, or panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        whole = known = False
    if not whole or not known:
        why = "damaged" if not whole else "of another version's columns"
        raise ResultsError(f"{path} is {why}: run python cli.py compare again, which sets it aside and makes it anew.")
    return frame


def _read_or_set_aside(folder: Path, name: str) -> tuple[pl.DataFrame, list[str]]:
    path = folder / f"{name}.parquet"
    expected = columns.RESULTS if name == RESULTS else columns.PREDICTIONS
    empty = pl.DataFrame(schema=columns.schema(expected))
    if not path.exists():
        return empty, []
    try:
        return _read_one(path, expected), []
    except ResultsError:
        path.replace(path.with_name(path.name + ".damaged"))
        return empty, [f"{path} was damaged and is set aside: it begins anew with this comparison's rows."]
