"""What lies at a place, sorted out: pictures, tables, and what is neither, with the reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from toolkit.data.images import HEAD, HEIC, SUFFIXES, format_of, formats
from toolkit.data.sources.vocabulary import left_behind
from toolkit.errors import DataError, ImageError

NOT_LOOKED_INTO = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".py", ".html", ".log")
"""Files beside pictures that are known to be none; of others the first bytes tell."""
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")

Head = Callable[[str], bytes]
"""The first `HEAD` bytes, at least, of a file by its name."""


@dataclass(frozen=True)
class Listing:
    """Names, relative to a place and escaped: `pictures`, and (name, reason) of whatever else was met there."""

    pictures: list[str]
    passed_over: list[tuple[str, str]]

    def tables(self) -> list[str]:
        """The names of the tables among what is no picture."""
        return sorted(name for name, _ in self.passed_over if name.lower().endswith(TABLES) and not left_behind(name))

    def without(self, used: Iterable[str]) -> "Listing":
        """The same, where these files that are no pictures were used after all."""
        taken = set(used)
        return Listing(self.pictures, [one for one in self.passed_over if one[0] not in taken])


def sort_out(names: Iterable[str], head: Head, passed_over: Iterable[tuple[str, str]] = ()) -> Listing:
    """Tell pictures from other files: by their names where these say it, else by their first bytes."""
    listing = Listing([], list(passed_over))
    for name in names:
        reason = why_no_picture(name, head)
        if reason is None:
            listing.pictures.append(name)
        else:
            listing.passed_over.append((name, reason))
    return listing


def why_no_picture(name: str, head: Head) -> str | None:
    """The reason for passing a file over, None for a picture."""
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
