"""Images without labels, to predict: files, folders and zips."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import polars as pl

from toolkit.data.manifest import SCHEMA, Dataset, escape, natural, reasons
from toolkit.data.sources.archive import open_members
from toolkit.data.sources.listing import Listing, sort_out
from toolkit.data.sources.local import files_below, head_of, read_regular, reader
from toolkit.errors import DataError, ImageError

Read = Callable[[], bytes]


def open_loose(places: Iterable[str]) -> Dataset:
    """The images at `places`, in order: each file named, all images below a folder, all images in a zip.

    Other files below a folder or in a zip are skipped. A place that cannot be read is listed; reading it raises the
    reason. A zip's members are named `photos.zip/member.jpg`. Links are followed as in other data (`folder`).
    """
    found: dict[str, Read] = {}
    passed_over: list[tuple[str, str]] = []
    for place in places:
        for name, read in _at(place, passed_over):
            found.setdefault(name, read)
    rows = pl.DataFrame({"path": list(found)}, schema={"path": pl.String}).with_columns(
        label=pl.lit(None, dtype=pl.String), category=pl.lit(None, dtype=pl.String), split=pl.lit("test")
    )
    images = f"{len(rows):,} images"
    out = reasons(passed_over).unique(maintain_order=True)
    return Dataset("images", images, rows.select(list(SCHEMA)), lambda path: found[path](), "loose", out)


def _at(place: str, passed_over: list[tuple[str, str]]) -> Iterator[tuple[str, Read]]:
    path = Path(place)
    try:
        if path.is_dir():
            yield from _folder(path, passed_over)
        elif path.suffix.lower() == ".zip" and path.is_file():
            yield from _listed(*open_members(path), str(path), "zip", passed_over)
        else:
            yield _shown(place), partial(_read, os.fsencode(place))
    except (DataError, OSError, ValueError) as error:  # ValueError: a null character in the name
        yield _shown(place), partial(_fail, str(error))


def _folder(root: Path, passed_over: list[tuple[str, str]]) -> Iterator[tuple[str, Read]]:
    out: list[tuple[str, str]] = []
    listing = sort_out(list(files_below(root, out)), head_of(root), out)
    yield from _listed(listing, reader(root), str(root), "folder", passed_over)


def _listed(
    listing: Listing, read: Callable[[str], bytes], place: str, what: str, passed_over: list[tuple[str, str]]
) -> Iterator[tuple[str, Read]]:
    passed_over += [(f"{_shown(place.rstrip('/'))}/{name}", why) for name, why in listing.passed_over]
    if not listing.pictures:
        raise DataError(f"no images in this {what}")
    for name in sorted(listing.pictures, key=lambda name: (natural(name), name)):
        yield f"{_shown(place.rstrip('/'))}/{name}".replace("%25", "%"), partial(read, name)


def _shown(name: str) -> str:
    """The name as the user wrote it, except characters that terminals and tables cannot hold: `%XX`."""
    return escape(name).replace("%25", "%")


def _read(path: bytes) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ImageError((error.strerror or str(error)).lower()) from error


def _fail(reason: str) -> bytes:
    raise ImageError(reason)
