"""Files below a local folder: their names, and reading them without leaving the folder."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from toolkit.data.images import HEAD
from toolkit.data.manifest import escape, unescape
from toolkit.data.sources.files import LARGEST_FILE
from toolkit.errors import DataError, ImageError

OUTSIDE = "a link that leads outside the data's folder"
BACK = "a link to a folder that contains it or was read before"


def files_below(root: Path, passed_over: list[tuple[str, str]]) -> Iterator[str]:
    """Escaped paths of all files, relative to `root`. Links that stay inside are followed, to each folder once, which
    excludes loops; other links are added to `passed_over`. Raises DataError."""
    top = os.path.realpath(os.fsencode(root))
    met: set[bytes] = set()

    def walk(folder: bytes, below: bytes, around: tuple[bytes, ...]) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"Cannot list {os.fsdecode(error.filename)}: {error.strerror}.") from error
        for entry in entries:
            name = os.path.join(below, entry.name)
            real = os.path.realpath(entry.path) if entry.is_symlink() else b""
            if real and os.path.commonpath([real, top]) != top and os.path.lexists(real):
                passed_over.append((escape(name), OUTSIDE))
            elif _is_folder(entry):
                if real and (real in met or any(_is_in(one, real) for one in around)):
                    passed_over.append((escape(name), BACK))
                    continue
                met.update([real] if real else [])
                yield from walk(entry.path, name, (*around, real or os.path.join(around[-1], entry.name)))
            else:
                yield escape(name)

    yield from walk(os.fsencode(root), b"", (top,))


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_in(folder: bytes, other: bytes) -> bool:
    return os.path.commonpath([folder, other]) == other


def head_of(root: Path) -> Callable[[str], bytes]:
    """Reads the first bytes of regular files below `root`."""
    top = os.path.realpath(os.fsencode(root))
    return lambda name: _read_file(os.path.join(top, unescape(name)), top, HEAD)


def reader(root: Path) -> Callable[[str], bytes]:
    """Reads regular files below `root` by their escaped paths; refuses devices, pipes and paths that lead outside."""
    top = os.path.realpath(os.fsencode(root))

    def read(path: str) -> bytes:
        place = os.path.join(top, unescape(path))
        try:
            return _read_file(place, top)
        except OSError as error:
            raise ImageError((error.strerror or str(error)).lower()) from error
        except ValueError as error:  # a name with a null character
            raise ImageError("no such file") from error

    return read


def _read_file(place: bytes, top: bytes, size: int = -1) -> bytes:
    """The bytes of a file, all or the first `size`, whose real path, after links and `..`, lies below `top`."""
    real = os.path.realpath(place)
    if os.path.commonpath([real, top]) != top:
        raise ImageError("outside the data's folder")
    return read_regular(real, size)


def read_regular(real: bytes, size: int = -1) -> bytes:
    """The bytes of a regular file, all or the first `size`. Raises ImageError for a device, a pipe or a huge file, and
    OSError as `open` does."""
    # Opening a pipe blocks until there is a writer, so the file is opened without blocking and checked first.
    handle = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError("not a regular file")
        if facts.st_size > LARGEST_FILE:
            raise ImageError(f"larger than {LARGEST_FILE >> 20} MiB")
        return file.read(size)
