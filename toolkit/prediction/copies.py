"""Copies of predicted pictures, sorted into one folder a label. Nothing is moved, and no file is ever replaced."""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from toolkit.errors import ImageError, ResultsError

UNSURE = "unsure"
NOT_IN_NAMES = re.compile(r'[\x00-\x1f/\\:*?"<>|]')

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that has no links, as on cameras' cards."""


_Taken = dict[Path, tuple[set[bytes], Iterator[Path]]]
"""A name -> the hashes of the files that have it, with and without a number, and the names to try next."""


@dataclass(frozen=True)
class Copied:
    """How many pictures were copied to each folder, how many were there already, how many could not be read again."""

    folders: dict[str, int]
    there: int
    gone: int


def copy(images: pl.DataFrame, read: Callable[[str], bytes], folder: Path) -> Copied:
    """Copy each picture of `images` (columns path, label, reason) into `folder/<label>/`, one without a label into
    `folder/unsure/`; unreadable ones are left out.

    A picture whose name is taken there gets a number, `a-2.jpg`; if its bytes are there under such a name, it is not
    copied again. Raises ResultsError where the folder cannot be written.
    """
    folders: dict[str, int] = {}
    taken: _Taken = {}
    there = gone = 0
    for path, label in images.filter(pl.col("reason").is_null()).select("path", "label").iter_rows():
        name = _folder_name(label)
        try:
            data = read(path)
        except (ImageError, OSError):
            gone += 1
            continue
        try:
            new = _copied(data, folder / name, PurePosixPath(path.replace("\\", "/")).name, taken)
        except OSError as error:
            raise ResultsError(f"Cannot copy {path} to {folder / name}: {error.strerror or error}.") from error
        if new:
            folders[name] = folders.get(name, 0) + 1
        there += not new
    return Copied(folders, there, gone)


def _folder_name(label: str | None) -> str:
    """A label as the name of a folder: never one that leads elsewhere."""
    name = NOT_IN_NAMES.sub("_", label).strip(". ") if label is not None else UNSURE
    return name or "_"


def _copied(data: bytes, folder: Path, name: str, taken: _Taken) -> bool:
    """Write `data` under the first free name; False if a file with one of the names before it has the same bytes.

    `taken` are the names met so far: their files are read once, though ten thousand may be called the same."""
    folder.mkdir(parents=True, exist_ok=True)
    contents, names = taken.setdefault(folder / name, (set(), _names(folder, name)))
    digest = hashlib.sha256(data).digest()
    if digest in contents:
        return False
    for target in names:
        if not os.path.lexists(target) and _write_new(target, data):
            contents.add(digest)
            return True
        if target.is_file():
            contents.add(hashlib.sha256(target.read_bytes()).digest())
            if digest in contents:
                return False
    raise AssertionError("unreachable")


def _names(folder: Path, name: str) -> Iterator[Path]:
    first, number = Path(name), 1
    yield folder / name
    while number := number + 1:
        yield folder / f"{first.stem}-{number}{first.suffix}"


def _write_new(target: Path, data: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; False if somebody else was faster."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.link(part, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with target.open("xb") as file:
            file.write(data)
    finally:
        part.unlink(missing_ok=True)
    return True
