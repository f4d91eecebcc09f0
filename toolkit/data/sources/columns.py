"""Read tables of any separator, encoding and spelling, and find out what each column means."""

import codecs
import io
import re
from collections.abc import Mapping

import polars as pl

from toolkit.data.sources.vocabulary import COLUMNS, plain_column, split_named
from toolkit.errors import DataError, first_line

SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MEANINGS = ("path", "label", "split", "category")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that starts so for a formula; tables that are written have an apostrophe before it."""
LOOKS_LIKE_A_FILE = re.compile(r".*[/\\].*|.*\.[A-Za-z0-9]{2,5}")
PLAIN = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime)
OF_SUSPECTS = ("rank", "suggested", "p_label", "p_suggested", "suspect")
"""What `data suspects` found out, in the list that people correct and give as data: it describes no image."""
ROW = "row "
"""The column with each row's number, as a spreadsheet shows it. The trailing space keeps it apart from a table's
own."""


def read_table(data: bytes, name: str) -> pl.DataFrame:
    """The cells of a CSV, TSV, JSON lines or Parquet as text, with a column `ROW`. Raises DataError."""
    kind = name.lower().rsplit(".", 1)[-1]
    try:
        if kind == "parquet":
            frame, first = pl.read_parquet(io.BytesIO(data)), 1
        elif kind in ("jsonl", "ndjson"):
            frame, first = pl.read_ndjson(io.BytesIO(_text(data).encode()), infer_schema_length=None), 1
        else:
            frame, first = _unguarded(_read_csv(_text(data))), 2
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        raise DataError(f"{name} cannot be read as a table: {first_line(error)}.") from error
    frame = frame.drop(OF_SUSPECTS) if set(OF_SUSPECTS) <= set(frame.columns) else frame
    return as_text(frame).with_row_index(ROW, first)


def _unguarded(frame: pl.DataFrame) -> pl.DataFrame:
    """The cells without the apostrophe that keeps a spreadsheet from taking them for formulas."""
    guard = rf"^'([{re.escape(''.join(FORMULA_STARTS))}])"
    return frame.with_columns(pl.col(pl.String).str.replace(guard, "${1}"))


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns with plain values, as text."""
    plain = [name for name, kind in frame.schema.items() if (kind.is_numeric() or kind in PLAIN) and name.strip()]
    return frame.select(pl.col(plain).cast(pl.String))


def columns_of(frame: pl.DataFrame, said: Mapping[str, str], where: str, needed: tuple[str, ...]) -> dict[str, str]:
    """Meaning (path, label, split, category) -> column name: as `said`, else by the names of the columns.

    Raises DataError, naming the columns found and needed, if a needed one is missing.
    """
    names = [name for name in frame.columns if name != ROW]
    wrong = next((f"{meaning}={name}" for meaning, name in said.items() if name not in names), None)
    if wrong:
        raise DataError(f"{where} has no column for --columns {wrong}: it has {', '.join(names)}.")
    found = dict(said)
    for meaning in MEANINGS:
        column = _column(frame, meaning, set(found.values())) if meaning not in found else None
        if column:
            found[meaning] = column
    missing = [meaning for meaning in needed if meaning not in found]
    if missing:
        wanted = ",".join(f"{one}=NAME" for one in missing)
        raise DataError(
            f"{where} has no column {missing[0]!r} under any known name: it has {', '.join(names) or 'no others'}; "
            f"it needs path, label and split, named in its first row. --columns {wanted} says which they are."
        )
    return found


def _column(frame: pl.DataFrame, meaning: str, taken: set[str]) -> str | None:
    """The column with a name of this meaning; of several, the first in `COLUMNS` whose cells fit."""
    spelled = {plain_column(name): name for name in reversed(frame.columns) if name not in taken and name != ROW}
    there = [spelled[word] for word in COLUMNS[meaning] if word in spelled]
    if meaning == "split":
        told = (name for name in there if any(split_named(cell or "") for cell in frame[name].unique()))
        return next(told, spelled.get(meaning))
    if meaning == "path":
        first = (name for name in there if _looks_like_files(frame[name]))
        return next(first, there[0] if there else None)
    return there[0] if there else None


def _looks_like_files(cells: pl.Series) -> bool:
    some = cells.drop_nulls().head(100).to_list()
    return bool(some) and all(LOOKS_LIKE_A_FILE.fullmatch(cell) for cell in some)


def _text(data: bytes) -> str:
    """Decoded by the byte order mark, else as UTF-8, else as Windows-1252."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if marked:
        return data.decode(marked)
    if data[1:2] == b"\0" or data[:1] == b"\0":
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _read_csv(text: str) -> pl.DataFrame:
    text = text.lstrip("\n\r")
    header = text.split("\n", 1)[0]
    separator = max(SEPARATORS, key=lambda one: (_known(header.split(one)), header.count(one)))
    frame = pl.read_csv(io.BytesIO(text.encode()), separator=separator, infer_schema=False)
    stripped = {name: name.strip().strip("'\"") for name in frame.columns}
    if any(name != name.strip() for name in frame.columns):  # a space after each separator
        frame = frame.with_columns(pl.all().str.strip_chars())
    return frame.rename(stripped) if len(set(stripped.values())) == len(stripped) else frame


def _known(names: list[str]) -> int:
    known = {word for words in COLUMNS.values() for word in words}
    return sum(plain_column(name.strip().strip("'\"")) in known for name in names)
