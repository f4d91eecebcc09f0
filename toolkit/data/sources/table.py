"""A CSV or Parquet that lists images: columns path, label, split, and (if there are any) category."""

import io
import posixpath
from collections.abc import Callable
from pathlib import Path

import polars as pl

from toolkit.data.manifest import SCHEMA, SPLITS, Dataset, escape
from toolkit.data.sources.files import is_address, read_whole, reader_below
from toolkit.data.sources.folder import reader
from toolkit.errors import DataError

NEEDED = ("path", "label", "split")


def open_table(path: Path | str, name: str) -> Dataset:
    """The images that a table lists, in its order; paths are relative to the table's folder and stay below it.

    Raises DataError where the table cannot be read, lacks a column, or names a split other than train and test.
    """
    table = _read(path)
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}: it needs path, label, split, and may have category.")
    if "category" not in table.columns:
        table = table.with_columns(category=pl.lit(None, dtype=pl.String))
    rows = table.select([pl.col(column).cast(pl.String) for column in SCHEMA]).with_columns(
        pl.col("path").map_elements(escape, return_dtype=pl.String),
        pl.col("split").str.to_lowercase(),
    )
    _check(rows, path)
    rows = rows.unique("path", keep="first", maintain_order=True)
    return Dataset(name, f"the {len(rows):,} images that {path} lists", rows, _reader_beside(path), "table")


def _reader_beside(path: Path | str) -> Callable[[str], bytes]:
    """Reads what lies below the table's own folder."""
    return reader_below(posixpath.dirname(str(path))) if is_address(path) else reader(Path(path).parent)


def _read(path: Path | str) -> pl.DataFrame:
    try:
        source = io.BytesIO(read_whole(str(path))) if is_address(path) else Path(path)
        if str(path).lower().endswith(".parquet"):
            return pl.read_parquet(source)
        return pl.read_csv(source, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0][:160]}.") from error


def _check(rows: pl.DataFrame, path: Path | str) -> None:
    for column in NEEDED:
        empty = rows[column].null_count() + int((rows[column] == "").sum())
        if empty:
            raise DataError(f"{path}: {empty} rows have no {column}.")
    other = [split for split in rows["split"].unique().to_list() if split not in SPLITS]
    if other:
        raise DataError(f"{path}: split is {other[0]!r} in some rows; it must be train or test.")
    if rows.is_empty():
        raise DataError(f"{path} lists no images.")
