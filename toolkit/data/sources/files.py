"""Read local files and fsspec's addresses (`s3://`, `gs://`, `https://`, …), whole or in parts.

Local files are read with system calls. Addresses are read through fsspec, which requests only the bytes needed.
"""

import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from toolkit.data.images import HEAD
from toolkit.data.manifest import escape, unescape
from toolkit.errors import DataError, ImageError, first_line

LARGEST_FILE, LARGEST_MEMBER = 1 << 30, 256 << 20
"""Bytes of a file, and of one in a zip or tar; larger ones are no pictures."""

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> those bytes, fewer at the end of the file. Thread-safe."""


def is_address(place: str | Path) -> bool:
    """Whether `place` is an fsspec address rather than a path."""
    return "://" in str(place)


def in_full(place: str) -> str:
    """The address, or the absolute path."""
    return place if is_address(place) else str(Path(place).absolute())


def is_there(address: str) -> bool:
    """Whether a file or a folder exists at the address. Raises DataError if it cannot be reached."""
    system, path = _behind(address)
    with _readable_errors(address):
        return bool(system.exists(path))


def is_folder(address: str) -> bool:
    """Whether the address is a folder. Raises DataError if it cannot be reached."""
    system, path = _behind(address)
    with _readable_errors(address):
        return bool(system.isdir(path))


def open_binary(place: str | Path) -> BinaryIO:
    """The file, opened for random access. Raises OSError for a path and DataError for an address that cannot be
    read."""
    if not is_address(place):
        return open(place, "rb")
    system, path = _behind(str(place))
    with _readable_errors(str(place)):
        return cast(BinaryIO, system.open(path, "rb"))


def read_whole(address: str) -> bytes:
    """All bytes of the file at the address. Raises DataError."""
    system, path = _behind(address)
    with _readable_errors(address):
        return bytes(system.cat_file(path))


CHANGES = ("etag", "lastmodified", "last_modified", "mtime", "created", "generation", "md5hash", "content-md5")
"""What a server may tell of a file that changes with it, in lower case; its size alone says too little."""


def fingerprint(place: str) -> str | None:
    """A text that changes when the file does: its size and time, or what its server tells. None where a server tells
    only the size. Raises DataError."""
    if is_address(place):
        system, path = _behind(place)
        with _readable_errors(place):
            told = {name.lower(): str(value) for name, value in system.info(path).items()}
        known = [f"{name} {told[name]}" for name in CHANGES if name in told]
        return " ".join([place, told.get("size", ""), *known]) if known else None
    with _readable_errors(place):
        facts = os.stat(place)
    return f"{facts.st_size} {facts.st_mtime_ns}"


def pieces_of(place: str | Path) -> ReadAt:
    """A function that reads parts of one file, which stays open. Raises OSError for a path that cannot be opened."""
    if is_address(place):
        return _pieces_behind(str(place))
    handle = os.open(place, os.O_RDONLY)
    return lambda offset, size: os.pread(handle, size, offset)


def pieces_of_many(place: str | Path) -> ReadAt:
    """The same for one of many files. It is opened for each read, as thousands would be too many to keep open."""
    if is_address(place):
        return _pieces_behind(str(place))

    def read(offset: int, size: int) -> bytes:
        handle = os.open(place, os.O_RDONLY)
        try:
            return os.pread(handle, size, offset)
        finally:
            os.close(handle)

    return read


def _pieces_behind(address: str) -> ReadAt:
    system, path = _behind(address)

    def read(offset: int, size: int) -> bytes:
        try:
            return bytes(system.cat_file(path, start=offset, end=offset + size))
        except Exception as error:  # each fsspec file system raises its own types
            raise ImageError(_reason(error)) from error

    return read


def names_below(root: str) -> Iterator[str]:
    """Escaped names of all files below an address, relative to it. Raises DataError."""
    system, top = _behind(root)
    with _readable_errors(root):
        found = sorted(system.find(top))
    for path in found:
        yield escape(posixpath.relpath(path, top))


def reader_below(root: str) -> Callable[[str], bytes]:
    """Reads files below an address by their escaped names, and refuses names that lead outside of it."""
    system, top = _behind(root)

    def read(name: str) -> bytes:
        path = posixpath.normpath(posixpath.join("/", os.fsdecode(unescape(name)))).lstrip("/")
        if path != posixpath.normpath(os.fsdecode(unescape(name))):
            raise ImageError("outside the data's folder")
        try:
            place = f"{top.rstrip('/')}/{path}"
            if system.size(place) > LARGEST_FILE:
                raise ImageError(f"larger than {LARGEST_FILE >> 20} MiB")
            return bytes(system.cat_file(place))
        except ImageError:
            raise
        except Exception as error:  # each fsspec file system raises its own types
            raise ImageError(_reason(error)) from error

    return read


def head_below(root: str) -> Callable[[str], bytes]:
    """Reads the first bytes of files below an address by their escaped names. Raises ImageError."""
    return lambda name: _pieces_behind(f"{root.rstrip('/')}/{os.fsdecode(unescape(name))}")(0, HEAD)


def matching(pattern: str) -> list[str]:
    """The files that match a pattern (`*`, `?`, `[…]`) of paths or addresses, unordered."""
    if not is_address(pattern):
        from glob import glob

        return glob(pattern)
    system, path = _behind(pattern)
    with _readable_errors(pattern):
        return [str(system.unstrip_protocol(one)) for one in system.glob(path)]


def _behind(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it."""
    from fsspec.core import url_to_fs

    with _readable_errors(address):
        system, path = url_to_fs(address)
    return system, str(path)


@contextmanager
def _readable_errors(address: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f'{address} needs an additional package ({error}): pip install -e ".[cloud]"') from error
    except Exception as error:  # each fsspec file system raises its own types
        raise DataError(f"{address} cannot be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return first_line(error, 120)
