"""A zip of images, read in place: CIFAKE as Kaggle delivers it, or `split/label/category/…`."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit.data.images import HEAD
from toolkit.data.manifest import Dataset, escape
from toolkit.data.sources.assemble import AS_IT_LOOKS, Reading
from toolkit.data.sources.files import ReadAt, open_binary, pieces_of
from toolkit.data.sources.listing import Listing, sort_out
from toolkit.data.sources.table import open_listing
from toolkit.errors import DataError, ImageError

LARGEST_MEMBER = 256 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")
AHEAD = 1 << 10
"""The packed bytes read to recognise an image."""
ROOM_FOR_EXTRA = 64
"""Read in addition, so that header and packed bytes come in one request."""


def open_zip(path: Path | str, name: str, asked: Reading = AS_IT_LOOKS) -> Dataset:
    """The data set in a zip, read in place. Members with unsafe names (`../`, absolute) are skipped. Raises
    DataError."""
    listing, read = open_members(path)
    return open_listing(listing, name, "images in", str(path), read, asked)


def open_members(path: Path | str) -> tuple[Listing, Callable[[str], bytes]]:
    """The files in a zip, by escaped names, and a function that reads one by its name. Raises DataError."""
    try:
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        members, passed_over = _members(infos)
        pieces = pieces_of(path)
        read = _reader(pieces, members)
        return sort_out(members, lambda name: _head(members[name], pieces), passed_over), read
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as a zip: {error}. Download it again.") from error


def _members(infos: Iterable[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], list[tuple[str, str]]]:
    """The members by their escaped names, and those that are skipped. Of members with the same name the last counts."""
    members: dict[str, zipfile.ZipInfo] = {}
    passed_over = []
    for info in infos:
        name = escape(info.filename)
        if not _harmless(info):
            passed_over.append((name, "its name leads out of the zip"))
            continue
        if name in members:
            passed_over.append((name, "there twice in the zip: the last one counts"))
        members[name] = info
    return members, passed_over


def _harmless(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.replace("\\", "/").split("/")
    return not info.filename.startswith(("/", "\\")) and ".." not in parts


def _reader(pieces: ReadAt, members: dict[str, zipfile.ZipInfo]) -> Callable[[str], bytes]:
    """Reads members directly from the file: zipfile locks a shared archive and takes four times as long."""

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


def _head(info: zipfile.ZipInfo, pieces: ReadAt) -> bytes:
    """The first bytes of a member."""
    if info.flag_bits & 1:
        raise ImageError("encrypted in the zip")
    header = LOCAL_HEADER.size + len(info.orig_filename.encode()) + 2 * len(info.extra) + ROOM_FOR_EXTRA
    ahead = pieces(info.header_offset, header + AHEAD)
    if len(ahead) < LOCAL_HEADER.size:
        raise ImageError("damaged in the zip")
    _, name_length, extra_length = LOCAL_HEADER.unpack(ahead[: LOCAL_HEADER.size])
    packed = ahead[LOCAL_HEADER.size + name_length + extra_length :]
    if info.compress_type == zipfile.ZIP_STORED:
        return packed[: min(HEAD, info.file_size)]
    try:
        return zlib.decompressobj(-15).decompress(packed, HEAD)
    except zlib.error as error:
        raise ImageError("damaged in the zip") from error


def _unpack(info: zipfile.ZipInfo, pieces: ReadAt) -> bytes:
    """The member's bytes, at most one more than its listed size, whatever its header claims (APPNOTE 4.3.7)."""
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
    raise ImageError(f"compressed by an unsupported method ({info.compress_type})")
