"""A folder of images: CIFAKE unpacked, or `split/label/category/…`."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from toolkit.data.manifest import Dataset, escape, unescape
from toolkit.data.sources.files import LARGEST_FILE, names_below, reader_below
from toolkit.data.sources.layout import rows_from_names
from toolkit.errors import DataError, ImageError


def open_folder(root: Path, name: str) -> Dataset:
    """The data set below `root`. Raises DataError where its folders say nothing about splits and labels."""
    return _described(name, str(root), _names(root), reader(root))


def open_folder_at(address: str, name: str) -> Dataset:
    """The data set below an address of fsspec's. Raises DataError as `open_folder` does."""
    return _described(name, address, names_below(address), reader_below(address))


def _described(name: str, root: str, names: Iterator[str], read: Callable[[str], bytes]) -> Dataset:
    kind, rows = rows_from_names(names, root)
    what = "CIFAKE" if kind == "cifake" else "images"
    return Dataset(name, f"{what} in the folder {root}: {len(rows):,} images", rows, read, kind)


def _names(root: Path) -> Iterator[str]:
    """Escaped paths of all files, relative to `root`. Links to folders are not followed, so no loop can be met."""
    top = os.fsencode(root)

    def fail(error: OSError) -> None:
        raise DataError(f"Cannot list {error.filename}: {error.strerror}.")

    for folder, _, files in os.walk(top, onerror=fail):
        below = os.path.relpath(folder, top)
        for file in files:
            yield escape(file if below == b"." else os.path.join(below, file))


def reader(root: Path) -> Callable[[str], bytes]:
    """Reads files below `root` by their escaped paths, and nothing else: no device, no pipe, nothing outside."""
    top = os.path.realpath(os.fsencode(root))

    def read(path: str) -> bytes:
        place = os.path.join(top, unescape(path))
        try:
            return _read_file(place, top)
        except OSError as error:
            raise ImageError((error.strerror or str(error)).lower()) from error

    return read


def _read_file(place: bytes, top: bytes) -> bytes:
    """Only the file's real place counts, whatever links and `..` lead there."""
    real = os.path.realpath(place)
    if os.path.commonpath([real, top]) != top:
        raise ImageError("outside the data's folder")
    return read_regular(real)


def read_regular(real: bytes) -> bytes:
    """The bytes of a regular file. Raises ImageError for a device, a pipe or a huge file, OSError where `open` does."""
    # Opening a pipe would wait for a writer for ever, so it is opened without waiting and looked at first.
    handle = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError("not a regular file")
        if facts.st_size > LARGEST_FILE:
            raise ImageError(f"larger than {LARGEST_FILE >> 20} MiB")
        return file.read()
