"""A zip of images, read in place: CIFAKE as Kaggle delivers it, or `split/label/category/…`."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import DataError, ImageError
from toolkit.manifest import Dataset, escape
from toolkit.sources.layout import rows_from_names

LARGEST_MEMBER = 256 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")


def open_zip(path: Path, name: str) -> Dataset:
    """The data set in a zip. Members that lead out of it (`../`, absolute) are left out. Raises DataError."""
    names, read = open_members(path)
    kind, rows = rows_from_names(names, str(path))
    what = "CIFAKE" if kind == "cifake" else "images"
    return Dataset(name, f"{what} in {path}, read in place: {len(rows):,} images", rows, read, kind)


def open_members(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The escaped names of a zip's harmless members, and what reads one of them by its name. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {escape(info.filename): info for info in archive.infolist() if _harmless(info)}
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as a zip: {error}. Download it again.") from error
    return list(members), _reader(path, members)


def _harmless(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.replace("\\", "/").split("/")
    return not info.is_dir() and not info.filename.startswith(("/", "\\")) and ".." not in parts


def _reader(path: Path, members: dict[str, zipfile.ZipInfo]) -> Callable[[str], bytes]:
    """Reads members straight from the file: zipfile takes turns on a shared archive, and four times as long."""
    handle = os.open(path, os.O_RDONLY)

    def read(name: str) -> bytes:
        info = members[name]
        if info.flag_bits & 1:
            raise ImageError("encrypted in the zip")
        if max(info.file_size, info.compress_size) > LARGEST_MEMBER:
            raise ImageError(f"unpacks to more than {LARGEST_MEMBER >> 20} MiB")
        try:
            data = _unpack(info, handle)
        except (OSError, zlib.error, struct.error) as error:
            raise ImageError(f"cannot be unpacked ({str(error)[:80]})") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ImageError("damaged in the zip")
        return data

    return read


def _unpack(info: zipfile.ZipInfo, handle: int) -> bytes:
    """The member's bytes, whatever its header claims never more than a byte over its listed size (APPNOTE 4.3.7)."""
    header = os.pread(handle, LOCAL_HEADER.size, info.header_offset)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise ImageError("damaged in the zip")
    start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    packed = os.pread(handle, info.compress_size, start)
    if info.compress_type == zipfile.ZIP_STORED:
        return packed
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-15).decompress(packed, info.file_size + 1)
    raise ImageError(f"packed in a way that is not read here (method {info.compress_type})")
