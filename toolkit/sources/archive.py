"""A zip of images, read in place: CIFAKE as Kaggle delivers it, or `split/label/category/…`."""

import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import DataError, ImageError
from toolkit.manifest import Dataset, escape
from toolkit.sources.layout import rows_from_names

LARGEST_MEMBER = 256 << 20


def open_zip(path: Path, name: str) -> Dataset:
    """The data set in a zip. Members that lead out of it (`../`, absolute) are left out. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {escape(info.filename): info for info in archive.infolist() if _harmless(info)}
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as a zip: {error}. Download it again.") from error
    kind, rows = rows_from_names(members, str(path))
    what = "CIFAKE" if kind == "cifake" else "images"
    return Dataset(name, f"{what} in {path}, read in place: {len(rows):,} images", rows, _reader(path, members), kind)


def _harmless(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.replace("\\", "/").split("/")
    return not info.is_dir() and not info.filename.startswith(("/", "\\")) and ".." not in parts


def _reader(path: Path, members: dict[str, zipfile.ZipInfo]) -> Callable[[str], bytes]:
    """One open archive a thread: zipfile's reads take turns on a shared one."""
    mine = threading.local()

    def read(name: str) -> bytes:
        info = members[name]
        if info.flag_bits & 1:
            raise ImageError("encrypted in the zip")
        if info.file_size > LARGEST_MEMBER:
            raise ImageError(f"unpacks to more than {LARGEST_MEMBER >> 20} MiB")
        try:
            if not hasattr(mine, "archive"):
                mine.archive = zipfile.ZipFile(path)
            with mine.archive.open(info) as file:
                data: bytes = file.read(LARGEST_MEMBER + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
            raise ImageError(f"cannot be unpacked ({str(error)[:80]})") from error
        if len(data) > LARGEST_MEMBER:
            raise ImageError(f"unpacks to more than {LARGEST_MEMBER >> 20} MiB")
        return data

    return read
