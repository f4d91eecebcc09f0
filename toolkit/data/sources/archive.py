"""A zip of images, read in place: CIFAKE as Kaggle delivers it, or `split/label/category/…`."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit.data.images import HEAD
from toolkit.data.manifest import Dataset, escape
from toolkit.data.sources import zip_index
from toolkit.data.sources.assemble import Reading
from toolkit.data.sources.files import LARGEST_MEMBER, ReadAt, open_binary, pieces_of
from toolkit.data.sources.listing import Listing, sort_out
from toolkit.data.sources.table import open_listing
from toolkit.data.sources.zip_index import Find, Member
from toolkit.errors import DataError, ImageError

LOCAL_HEADER = struct.Struct("<4s22xHH")
AHEAD = 1 << 10
"""The packed bytes read to recognise an image."""
ROOM_FOR_EXTRA = 64
"""Read in addition, so that header and packed bytes come in one request."""


def open_zip(path: Path | str, name: str, kept: Path | None, asked: Reading) -> Dataset:
    """The data set in a zip, read in place. Members with unsafe names (`../`, absolute) are skipped.

    `kept` is a folder where the listing is stored. Raises DataError.
    """
    state = zip_index.state_of(str(path)) if kept else None
    if kept is None or state is None:
        return _listed(path, name, asked, _pieces(path))[0]
    record = zip_index.place_in(kept, str(path), name, asked)
    if found := zip_index.read(record, state, lambda find: _reader(_pieces(path), find)):
        return found
    failed: list[Exception] = []
    dataset, members = _listed(path, name, asked, _noting(_pieces(path), failed))
    if not failed:  # what cannot be read now may be with the next command
        zip_index.write(record, state, dataset, members)
    return dataset


def _listed(path: Path | str, name: str, asked: Reading, pieces: ReadAt) -> tuple[Dataset, dict[str, Member]]:
    listing, members, read = _opened(path, pieces)
    return open_listing(listing, name, "images in", str(path), read, asked), members


def open_members(path: Path | str) -> tuple[Listing, Callable[[str], bytes]]:
    """The files in a zip, by escaped names, and a function that reads one by its name. Raises DataError."""
    listing, _, read = _opened(path, _pieces(path))
    return listing, read


def _opened(path: Path | str, pieces: ReadAt) -> tuple[Listing, dict[str, Member], Callable[[str], bytes]]:
    try:
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _unreadable(path, error) from error
    members, passed_over = _members(infos)
    listing = sort_out(members, lambda name: _head(members[name], pieces), passed_over)
    return listing, members, _reader(pieces, members.get)


def _pieces(path: Path | str) -> ReadAt:
    try:
        return pieces_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _noting(pieces: ReadAt, failed: list[Exception]) -> ReadAt:
    """`pieces`, with every read that fails added to `failed`."""

    def read_at(offset: int, size: int) -> bytes:
        try:
            return pieces(offset, size)
        except Exception as error:
            failed.append(error)
            raise

    return read_at


def _unreadable(path: Path | str, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a zip: {error}. Download it again.")


def _members(infos: Iterable[zipfile.ZipInfo]) -> tuple[dict[str, Member], list[tuple[str, str]]]:
    """The members by their escaped names, and those that are skipped. Of members with the same name the last counts."""
    members: dict[str, Member] = {}
    passed_over = []
    for info in infos:
        name = escape(info.filename)
        if not _harmless(info):
            passed_over.append((name, "its name leads out of the zip"))
            continue
        if name in members:
            passed_over.append((name, "there twice in the zip: the last one counts"))
        names = len(info.orig_filename.encode()) + 2 * len(info.extra)
        sizes = (info.compress_size, info.file_size, info.CRC)
        members[name] = Member(info.header_offset, names, *sizes, info.compress_type, info.flag_bits & 1)
    return members, passed_over


def _harmless(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.replace("\\", "/").split("/")
    return not info.filename.startswith(("/", "\\")) and ".." not in parts


def _reader(pieces: ReadAt, find: Find) -> Callable[[str], bytes]:
    """Reads members directly from the file: zipfile locks a shared archive and takes four times as long."""

    def read(name: str) -> bytes:
        member = find(name)
        if member is None:
            raise ImageError("not in the zip")
        if member.encrypted:
            raise ImageError("encrypted in the zip")
        if max(member.size, member.packed) > LARGEST_MEMBER:
            raise ImageError(f"unpacks to more than {LARGEST_MEMBER >> 20} MiB")
        try:
            data = _unpack(member, pieces)
        except (OSError, zlib.error, struct.error) as error:
            raise ImageError(f"cannot be unpacked ({str(error)[:80]})") from error
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise ImageError("damaged in the zip")
        return data

    return read


def _head(member: Member, pieces: ReadAt) -> bytes:
    """The first bytes of a member."""
    if member.encrypted:
        raise ImageError("encrypted in the zip")
    ahead = pieces(member.offset, LOCAL_HEADER.size + member.names + ROOM_FOR_EXTRA + AHEAD)
    if len(ahead) < LOCAL_HEADER.size:
        raise ImageError("damaged in the zip")
    _, name_length, extra_length = LOCAL_HEADER.unpack(ahead[: LOCAL_HEADER.size])
    packed = ahead[LOCAL_HEADER.size + name_length + extra_length :]
    if member.method == zipfile.ZIP_STORED:
        return packed[: min(HEAD, member.size)]
    try:
        return zlib.decompressobj(-15).decompress(packed, HEAD)
    except zlib.error as error:
        raise ImageError("damaged in the zip") from error


def _unpack(member: Member, pieces: ReadAt) -> bytes:
    """The member's bytes, at most one more than its listed size, whatever its header claims (APPNOTE 4.3.7)."""
    ahead = pieces(member.offset, LOCAL_HEADER.size + member.names + ROOM_FOR_EXTRA + member.packed)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(ahead[: LOCAL_HEADER.size])
    if signature != b"PK\x03\x04":
        raise ImageError("damaged in the zip")
    start = LOCAL_HEADER.size + name_length + extra_length
    packed = ahead[start : start + member.packed]
    if len(packed) < member.packed:  # a longer header than most
        packed = pieces(member.offset + start, member.packed)
    if member.method == zipfile.ZIP_STORED:
        return packed
    if member.method == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-15).decompress(packed, member.size + 1)
    raise ImageError(f"compressed by an unsupported method ({member.method})")
