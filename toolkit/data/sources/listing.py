"""Sort files into images, tables and others, with the reason why a file is not used."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from toolkit.data.images import HEAD, HEIC, SUFFIXES, format_of, formats
from toolkit.data.sources.vocabulary import left_behind
from toolkit.errors import DataError, ImageError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
NOT_LOOKED_INTO = (*TABLES[:-1], ".txt", ".json", ".xml", ".yaml", ".yml", ".md", ".py", ".html", ".log")
"""Suffixes of files that are not images; for other files the first bytes decide."""

Head = Callable[[str], bytes]
"""File name -> at least its first `HEAD` bytes."""


@dataclass(frozen=True)
class Listing:
    """Escaped file names relative to a place: `pictures`, and (name, reason) of all other files."""

    pictures: list[str]
    passed_over: list[tuple[str, str]]

    def tables(self) -> list[str]:
        """The names of the tables among the other files."""
        return sorted(name for name, _ in self.passed_over if name.lower().endswith(TABLES) and not left_behind(name))

    def without(self, used: Iterable[str]) -> "Listing":
        """The same, without these files among the others, because they are used."""
        taken = set(used)
        return Listing(self.pictures, [one for one in self.passed_over if one[0] not in taken])


def sort_out(names: Iterable[str], head: Head, passed_over: Iterable[tuple[str, str]] = ()) -> Listing:
    """Separate images from other files, by suffix or else by their first bytes."""
    listing = Listing([], list(passed_over))
    for name in names:
        reason = why_no_picture(name, head)
        if reason is None:
            listing.pictures.append(name)
        else:
            listing.passed_over.append((name, reason))
    return listing


def why_no_picture(name: str, head: Head) -> str | None:
    """The reason for skipping a file, None for an image."""
    left = left_behind(name)
    if left or name.lower().endswith(SUFFIXES):
        return left
    suffix = PurePosixPath(name).suffix.lower()
    kind = None if suffix in NOT_LOOKED_INTO else _format(name, head)
    if kind in formats():
        return None
    return HEIC if kind == "HEIF" else f"no picture ({suffix})" if suffix else "no picture"


def _format(name: str, head: Head) -> str | None:
    try:
        return format_of(head(name)[:HEAD])
    except (ImageError, DataError, OSError):
        return None
