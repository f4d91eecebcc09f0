"""A zip of images, read in place: CIFAKE as Kaggle delivers it, or `split/label/category/…`."""

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from toolkit.data.manifest import Dataset, escape
from toolkit.data.sources.files import ReadAt, open_binary, pieces_of
from toolkit.data.sources.layout import rows_from_names
from toolkit.errors import DataError, ImageError

LARGEST_MEMBER = 256 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")
ROOM_FOR_EXTRA = 64
"""So that the header and the packed bytes come in one piece, which an address takes a whole request for."""


def open_zip(path: Path | str, name: str) -> Dataset:
    """The data set in a zip. Members that lead out of it (`../`, absolute) are left out. Raises DataError."""
    names, read = open_members(path)
    kind, rows = rows_from_names(names, str(path))
    what = "CIFAKE" if kind == "cifake" else "images"
    return Dataset(name, f"{what} in {path}, read in place: {len(rows):,} images", rows, read, kind)


def open_members(path: Path | str) -> tuple[list[str], Callable[[str], bytes]]:
    """The escaped names of a zip's harmless members, and what reads one of them by its name. Raises DataError."""
    try:
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            members = {escape(info.filename): info for info in archive.infolist() if _harmless(info)}
        return list(members), _reader(pieces_of(path), members)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as a zip: {error}. Download it again.") from error


def _harmless(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.replace("\\", "/").split("/")
    return not info.is_dir() and not info.filename.startswith(("/", "\\")) and ".." not in parts


def _reader(pieces: ReadAt, members: dict[str, zipfile.ZipInfo]) -> Callable[[str], bytes]:
    """Reads members straight from the file: zipfile takes turns on a shared archive, and four times as long."""

    def read(name: str) -> bytes:
        info = members[name]
        if info.flag_bits & 1:
            raise ImageError("encrypted in the zip")
        if max(info.file_size, info.compress_size) > LARGEST_MEMBER:
            raise ImageError(f"unpacks to more than {LARGEST_MEMBER >> 20} MiB")
        try:
            data = _unpack(info, pieces)
        except (OSError, zlib.error, struct.error) as error:
            raise ImageError(f"cannot be unpacked ({str(error)[:80]})") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ImageError("damaged in the zip")
        return data

    return read


def _unpack(info: zipfile.ZipInfo, pieces: ReadAt) -> bytes:
    """The member's bytes, whatever its header claims never more than a byte over its listed size (APPNOTE 4.3.7)."""
    name = len(info.orig_filename.encode()) + 2 * len(info.extra)
    ahead = pieces(info.header_offset, LOCAL_HEADER.size + name + ROOM_FOR_EXTRA + info.compress_size)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(ahead[: LOCAL_HEADER.size])
    if signature != b"PK\x03\x04":
        raise ImageError("damaged in the zip")
    start = LOCAL_HEADER.size + name_length + extra_length
    packed = ahead[start : start + info.compress_size]
    if len(packed) < info.compress_size:  # a longer header than most
        packed = pieces(info.header_offset + start, info.compress_size)
    if info.compress_type == zipfile.ZIP_STORED:
        return packed
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-15).decompress(packed, info.file_size + 1)
    raise ImageError(f"packed in a way that is not read here (method {info.compress_type})")
