"""The manifest: a Polars frame that lists the images with their labels, categories and splits."""

import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from toolkit.data.labels import some
from toolkit.errors import ImageError, SelectionError, did_you_mean
from toolkit.storage import distributed

SCHEMA = {"path": pl.String, "label": pl.String, "category": pl.String, "split": pl.String}
HASHED_AT_ONCE = 512
NUMBERS = re.compile(r"(\d+)")
BEHIND_LETTERS = "\U0010ffff"
TO_ESCAPE = re.compile(r"[\x00-\x1f\x7f%\ud800-\udfff]")

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with how many of how many are done."""
Stages = Callable[[str, int, int], None]
"""Called with the stage, and how many of how many are done."""


@dataclass(frozen=True)
class Level:
    """A level of folders or a column of a table: its place, its meaning, and the number of images with each value."""

    place: str
    meaning: str
    values: Mapping[str, int]


def reasons(passed_over: Iterable[tuple[str, str]] = ()) -> pl.DataFrame:
    """(path, reason) pairs as the frame that `Dataset.passed_over` holds."""
    return pl.DataFrame(list(passed_over), schema={"path": pl.String, "reason": pl.String}, orient="row")


@dataclass(frozen=True)
class Dataset:
    """Labelled images somewhere, listed but not yet read.

    `rows` has the columns path (String), label, category (null if unknown), split (`train` or `test`), and further text
    columns of the data (generator, camera, …; null where a row has no value). Its order defines "the first N". All
    columns but the path become Categorical, which takes a quarter of the memory. `passed_over` (path, reason) lists the
    files that are not used, `layout` what each folder level or column was taken for, `notes` what the user should know
    about it. `read` returns the bytes of a path, raises ImageError with a short reason, and is thread-safe. `name` is
    the data's name in the results.
    """

    name: str
    description: str
    rows: pl.DataFrame
    read: Callable[[str], bytes]
    kind: str
    passed_over: pl.DataFrame = field(default_factory=reasons)
    layout: tuple[Level, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        few = [name for name, kind in self.rows.schema.items() if kind == pl.String and name != "path"]
        object.__setattr__(self, "rows", self.rows.with_columns(pl.col(few).cast(pl.Categorical)))

    def read_hashed(self, path: str, sha256: str) -> bytes:
        """The bytes of an image whose SHA-256 (hex) is known. Raises ImageError if it is gone or another by now."""
        data = self.read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError("changed while the command ran")
        return data

    @property
    def seen(self) -> int:
        """The number of files found: the images listed, and the files passed over."""
        return len(self.rows) + len(self.passed_over)

    def passed_over_by_reason(self) -> list[dict[str, Any]]:
        """What was passed over, as dicts of reason, count and one example, the most frequent reason first."""
        return by_reason(self.passed_over)

    def labels(self) -> list[str]:
        """The labels, sorted."""
        return sorted(self.rows["label"].unique().to_list())

    def categories(self) -> list[str]:
        """The categories, sorted; none where the data has none."""
        return sorted(self.rows["category"].drop_nulls().unique().to_list())

    def with_labels(self, labels: Sequence[str]) -> "Dataset":
        """The rows of these labels alone. Raises SelectionError for a label that the data does not have."""
        unknown = [label for label in labels if label not in self.labels()]
        if unknown:
            guess = did_you_mean(unknown[0], self.labels())
            raise SelectionError(f"{self.name} has no label {unknown[0]!r}: it has {some(self.labels())}.{guess}")
        return replace(self, rows=self.rows.filter(pl.col("label").is_in(list(labels))))


def frame(rows: Sequence[tuple[str, str, str | None, str]]) -> pl.DataFrame:
    """(path, label, category, split) tuples as the frame that `Dataset.rows` holds."""
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def by_reason(passed_over: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows (path, reason) counted: dicts of reason, count and one example, the most frequent reason first.

    `detail` is the part of the example's reason after a colon, which concerns that path only; null if there is none.
    """
    parts = pl.col("reason").str.splitn(": ", 2).struct
    told = passed_over.select("path", reason=parts.field("field_0"), detail=parts.field("field_1"))
    counted = told.group_by("reason", maintain_order=True).agg(
        count=pl.len(), example=pl.col("path").first(), detail=pl.col("detail").first()
    )
    return counted.sort("count", descending=True, maintain_order=True).to_dicts()


def hash_rows(
    dataset: Dataset,
    rows: pl.DataFrame,
    on_progress: Progress | None = None,
    check: Callable[[bytes], object] | None = None,
) -> pl.DataFrame:
    """Read the images of `rows` and add `sha256` (hex) of their bytes; null, with a `reason`, where unreadable.

    `check` is called with each image's bytes, and raises ImageError to reject them. Processes under torchrun share the
    reading, and each gets the hash of every row.
    """

    def hashed(paths: list[str]) -> list[tuple[str | None, str | None]]:
        return [_hash(dataset, path, check) for path in paths]

    found: list[tuple[str | None, str | None]] = []
    paths = distributed.share(rows)["path"].to_list()
    chunks = [paths[start : start + HASHED_AT_ONCE] for start in range(0, len(paths), HASHED_AT_ONCE)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for chunk in threads.map(hashed, chunks):
            found.extend(chunk)
            if on_progress:
                on_progress(len(found), len(paths))
    found = distributed.put_together(distributed.everyones(found))
    keys = pl.Series("sha256", [key for key, _ in found], dtype=pl.String)
    if len(rows):
        log.info("read %d images of %s, %d unreadable", len(rows), dataset.name, keys.null_count())
    return rows.with_columns(keys, pl.Series("reason", [reason for _, reason in found], dtype=pl.String))


def _hash(dataset: Dataset, path: str, check: Callable[[bytes], object] | None) -> tuple[str | None, str | None]:
    try:
        data = dataset.read(path)
        if check:
            check(data)
        return hashlib.sha256(data).hexdigest(), None
    except ImageError as error:
        return None, str(error)


def folded(name: str) -> str:
    """What two names have in common that differ only in case or Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def alike(value: str) -> str:
    """What two values have in common that differ only in case, Unicode form, or spaces around them."""
    return folded(value).strip()


def escape(name: bytes | str) -> str:
    """A file name as text for Polars, CSV and terminals: control characters and bytes that are not UTF-8 become `%XX`.
    So does `%` itself, which makes the escaping reversible.

    >>> escape("50 %\\n.jpg"), unescape("50 %25%0A.jpg")
    ('50 %25%0A.jpg', b'50 %\\n.jpg')
    """
    if isinstance(name, str) and not TO_ESCAPE.search(name):
        return name  # the fast path: nearly all names
    data = os.fsencode(name)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "".join(_escape_byte(byte) for byte in data)
    return "".join(_escape_character(character) for character in text)


def unescape(text: str) -> bytes:
    """The inverse of `escape`."""
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(text)


def _escape_byte(byte: int) -> str:
    return f"%{byte:02X}" if byte < 32 or byte > 126 or byte == 0x25 else chr(byte)


def _escape_character(character: str) -> str:
    return f"%{ord(character):02X}" if ord(character) < 32 or ord(character) == 127 or character == "%" else character


def natural(text: str) -> list[int | str]:
    """A sort key under which `2` comes before `10`, and a name that starts with a digit behind all others.

    >>> sorted(["a10", "7", "a2", "b", ""], key=natural)
    ['', 'a2', 'a10', 'b', '7']
    """
    parts: list[int | str] = [*NUMBERS.split(text)]  # text and number in turns, so that like meets like
    parts[1::2] = map(int, parts[1::2])
    if len(parts) > 1 and not parts[0]:
        parts[0] = BEHIND_LETTERS
    return parts
