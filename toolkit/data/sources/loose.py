"""Images without labels that a user hands over: files, folders, zips. They may lie anywhere."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import polars as pl

from toolkit.data.images import SUFFIXES
from toolkit.data.manifest import SCHEMA, Dataset, escape, natural
from toolkit.data.sources.archive import open_members
from toolkit.data.sources.folder import read_regular
from toolkit.errors import DataError, ImageError

Read = Callable[[], bytes]


def open_loose(places: Iterable[str]) -> Dataset:
    """The images at `places`, in their order: each file named, all images below a folder, all images in a zip.

    A place where there is nothing to read is listed as well: reading it says why. A zip's members are called
    `photos.zip/member.jpg`. Links to files are followed; those to folders below a folder are not, so no loop is met.
    """
    found: dict[str, Read] = {}
    for place in places:
        for name, read in _at(place):
            found.setdefault(name, read)
    rows = pl.DataFrame({"path": list(found)}, schema={"path": pl.String}).with_columns(
        label=pl.lit(None, dtype=pl.String), category=pl.lit(None, dtype=pl.String), split=pl.lit("test")
    )
    return Dataset("images", f"{len(rows):,} images", rows.select(list(SCHEMA)), lambda path: found[path](), "loose")


def _at(place: str) -> Iterator[tuple[str, Read]]:
    path = Path(place)
    try:
        if path.is_dir():
            yield from _folder(path)
        elif path.suffix.lower() == ".zip" and path.is_file():
            yield from _zip(path)
        else:
            yield _shown(place), partial(_read, os.fsencode(place))
    except (DataError, OSError, ValueError) as error:  # ValueError: a name with a null character
        yield _shown(place), partial(_fail, str(error))


def _folder(root: Path) -> Iterator[tuple[str, Read]]:
    names = [
        os.path.join(folder, name)
        for folder, _, files in os.walk(root, onerror=_raise)
        for name in files
        if name.lower().endswith(SUFFIXES)
    ]
    if not names:
        raise DataError("no images in this folder")
    for name in sorted(names, key=lambda name: (tuple(natural(name)), name)):
        yield _shown(name), partial(_read, os.fsencode(name))


def _zip(path: Path) -> Iterator[tuple[str, Read]]:
    members, read = open_members(path)
    images = [name for name in members if name.lower().endswith(SUFFIXES)]
    if not images:
        raise DataError("no images in this zip")
    for name in sorted(images, key=lambda name: (tuple(natural(name)), name)):
        yield f"{_shown(str(path))}/{name}", partial(read, name)


def _shown(name: str) -> str:
    """The name as the user wrote it; only what no terminal or table can hold is written `%XX`."""
    return escape(name).replace("%25", "%")


def _read(path: bytes) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ImageError((error.strerror or str(error)).lower()) from error


def _fail(reason: str) -> bytes:
    raise ImageError(reason)


def _raise(error: OSError) -> None:
    raise error
