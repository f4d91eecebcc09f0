"""Tables that list images: CSV, TSV, JSON lines or Parquet; alone, beside the images, or in their zip."""

import posixpath
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from toolkit.data.manifest import Dataset, escape
from toolkit.data.sources.assemble import Found, Reading, assemble, found_in_folders, join_spellings
from toolkit.data.sources.columns import MEANINGS, ROW, columns_of, read_table
from toolkit.data.sources.files import is_address, read_whole, reader_below
from toolkit.data.sources.listing import Listing
from toolkit.data.sources.local import reader
from toolkit.data.sources.resolve import AsWritten, Files, Finder, Names
from toolkit.data.sources.template import RESERVED
from toolkit.data.sources.vocabulary import split_folder, split_within
from toolkit.errors import DataError, listed

METADATA = "metadata"
"""Hugging Face's name of a table beside images: metadata.csv, metadata.jsonl."""


def open_table(path: Path | str, name: str, asked: Reading) -> Dataset:
    """The images that a table lists, in its order. Paths are relative to the table's folder and must stay below it.

    Raises DataError if the table cannot be read, lacks a column, or names no train and test split.
    """
    at_address = is_address(path)
    folder = posixpath.dirname(str(path))
    try:
        data = read_whole(str(path)) if at_address else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    finder: Finder = AsWritten() if at_address else Files(Path(path).parent)
    read = reader_below(folder) if at_address else reader(Path(path).parent)
    found = found_in_tables([(str(path), "", data)], finder, asked)
    return assemble(found, name, f"images that {path} lists", str(path), read, asked)


def open_listing(
    listing: Listing, name: str, what: str, where: str, read: Callable[[str], bytes], asked: Reading
) -> Dataset:
    """The images of a folder or an archive, described by a table among its files or else by its folders.

    Folders named like labels and splits take precedence over a table, unless that is named metadata. Raises DataError.
    """
    tables = [one for one in listing.tables() if _stem(one) == METADATA] or listing.tables()
    found = None if asked.columns and tables else found_in_folders(listing.pictures, listing.passed_over, asked)
    told = found is not None and (bool(asked.layout) or (found.by_words and found.rows["split"].count() > 0))
    if tables and (not told or _stem(tables[0]) == METADATA) and not asked.layout:
        found = _told_by_tables(listing, tables, where, read, asked, found) or found
    assert found is not None
    return assemble(found, name, f"{what} {where}", where, read, asked)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()


def _told_by_tables(
    listing: Listing,
    tables: Sequence[str],
    where: str,
    read: Callable[[str], bytes],
    asked: Reading,
    folders: Found | None,
) -> Found | None:
    """The rows that the tables give these images; None if they list none. Missing labels are taken from the folders."""
    names = Names(listing.pictures)
    files, first_error = [], None
    for one in tables:
        try:
            data = read(one)
            columns_of(read_table(data, one), asked.columns, f"{where}: {one}", ("path",))
            files.append((one, posixpath.dirname(one), data))
        except DataError as error:
            first_error = first_error or error
    if not files:
        if asked.columns and first_error:
            raise first_error
        return None
    try:
        found = found_in_tables(files, names, asked, folders)
    except DataError:
        if asked.columns or folders is None or folders.rows.is_empty():
            raise
        return None
    known = set(listing.pictures)
    listed = set(found.rows["path"]) & known
    if not listed:
        return None
    rest = listing.without(one for one, _, _ in files)
    missed = known - listed - {path for path, _ in found.passed_over}
    found.passed_over = [
        *rest.passed_over,
        *((path, "not in the table") for path in sorted(missed)),
        *found.passed_over,
    ]
    return found


def found_in_tables(
    files: Sequence[tuple[str, str, bytes]], finder: Finder, asked: Reading, folders: Found | None = None
) -> Found:
    """The rows of tables, given as (name, base folder of paths, content). Raises DataError."""
    parts: list[pl.DataFrame] = []
    passed_over: list[tuple[str, str]] = []
    levels: dict[str, str] = {}
    for name, base, data in files:
        frame = read_table(data, name)
        needed = ("path",) if folders is not None and not folders.rows.is_empty() else ("path", "label")
        columns = columns_of(frame, asked.columns, name, needed)
        part, odd = _rows(frame, columns, name, partial(finder.find, base=base))
        parts.append(part)
        passed_over += odd
        levels |= {meaning: columns[meaning] for meaning in columns}
    rows = pl.concat(parts, how="diagonal")
    if "label" not in levels and folders is not None:
        rows = rows.drop("label").join(
            folders.rows.select("path", "label"), on="path", how="left", maintain_order="left"
        )
    if rows.is_empty():
        raise DataError(f"{files[0][0]} lists no images{': ' + passed_over[0][1] if passed_over else ''}.")
    rows, notes = join_spellings(rows)
    rows, twice = _without_repeats(rows)
    more = [one for one in rows.columns if one not in (*MEANINGS, ROW, "table")]
    used = [(f"column {column}", meaning) for meaning, column in levels.items() if meaning != "path"]
    used += [(f"column {one}", one) for one in more]
    return Found(rows.drop(ROW, "table"), passed_over + twice, used, notes=notes, kind="table")


def _rows(
    frame: pl.DataFrame, columns: dict[str, str], name: str, find: Callable[[str], str | None]
) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    """The manifest's and further columns of one table; and (row, reason) of rows without a path."""
    taken = set(columns.values())
    further = [one for one in frame.columns if one not in taken and one not in (ROW, *RESERVED, *MEANINGS, "table")]
    none = pl.lit(None, dtype=pl.String)
    rows = frame.select(
        ROW,
        *[(pl.col(columns[one]) if one in columns else none).alias(one) for one in MEANINGS],
        *further,
        table=pl.lit(name),
    )
    empty = pl.col("path").is_null() | (pl.col("path") == "")
    odd = [(f"row {row}", "no path") for row in rows.filter(empty)[ROW].to_list()]
    rows = rows.filter(~empty)
    paths = [find(path) or escape(path) for path in rows["path"]]
    rows = rows.with_columns(pl.Series("path", paths, dtype=pl.String))
    if "split" not in columns:
        rows = rows.with_columns(pl.Series("split", [_split(path, name) for path in paths], dtype=pl.String))
    return rows, odd


def _split(path: str, table: str) -> str | None:
    """The split if the table has no column for it: from the innermost folder named like a split, else from the table's
    name."""
    return split_folder(path) or split_within(table.rsplit("/", 1)[-1])


def _without_repeats(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    """Each image once. Images with two labels or two splits are skipped, since nobody knows which one is right."""
    again = rows.filter(pl.col("path").is_duplicated())
    if again.is_empty():
        return rows, []
    out: list[tuple[str, str]] = []
    contradicted = set()
    for (path,), group in again.group_by("path", maintain_order=True):
        where = f"rows {listed([str(row) for row in group[ROW]])}"
        clashes = [
            f"two {name}s ({listed(values)})"
            for name in ("label", "split")
            if len(values := group[name].fill_null("none").unique(maintain_order=True).to_list()) > 1
        ]
        if clashes:
            contradicted.add(path)
            out += [(str(path), f"listed with two labels or two splits: {' and '.join(clashes)}, {where}")] * len(group)
        else:
            out += [(str(path), f"listed more than once: {where}")] * (len(group) - 1)
    kept = rows.filter(~pl.col("path").is_in(list(contradicted)))
    return kept.unique("path", keep="first", maintain_order=True), out
