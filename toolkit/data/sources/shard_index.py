"""What the headers of one tar shard say, found out once: reading them means walking through the whole shard."""

import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.data.images import SUFFIXES
from toolkit.data.manifest import escape
from toolkit.data.sources.files import fingerprint, open_binary
from toolkit.errors import CacheError, DataError
from toolkit.storage.records import read_record, write_record

BLOCK = 512
LARGEST_FACTS = 1 << 16
FACTS = (".json", ".cls", ".txt")
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """Images as (escaped name, offset, size) in the order in which they lie, and what is known of each sample: label,
    category, split, as far as its files name them."""

    images: list[tuple[str, int, int]]
    facts: dict[str, dict[str, str]]

    def facts_of(self, image: str) -> Mapping[str, str]:
        """What is known of an image's sample."""
        return self.facts.get(sample_of(image), {})

    def described(self) -> bool:
        """Whether any image has files that describe it."""
        return any(sample_of(image) in self.facts for image, _, _ in self.images)


def sample_of(name: str) -> str:
    """The name of a member up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


def index_of(place: str, kept: Path | None = None) -> Shard:
    """What a shard (path or address) holds; from the folder `kept`, where the same shard was read before.

    Raises DataError where it cannot be read as an uncompressed tar, whole to its end.
    """
    if kept is None:
        return _read(place)
    mark = sha256(f"{VERSION} {place} {fingerprint(place)}".encode()).hexdigest()[:32]
    record = kept / f"{mark}.json"
    try:
        found = read_record(record)
        return Shard([(name, offset, size) for name, offset, size in found["images"]], found["facts"])
    except (CacheError, KeyError, ValueError):
        shard = _read(place)
    with suppress(CacheError):  # a cache that cannot be written costs another walk, nothing else
        write_record(record, asdict(shard))
    return shard


def _read(place: str) -> Shard:
    try:
        with open_binary(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            shard = _walk(archive)
            file.seek(archive.offset)
            if file.read(BLOCK) != bytes(BLOCK):  # tarfile takes whatever is no header for the end
                raise DataError(f"{place} is damaged or cut off behind byte {archive.offset:,}: fetch it again.")
            return shard
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        hint = "; compressed shards cannot be read in place: unpack the .gz" if place.endswith((".gz", ".tgz")) else ""
        raise DataError(f"{place} cannot be read as a tar shard: {str(error)[:120]}{hint}.") from error


def _walk(archive: tarfile.TarFile) -> Shard:
    shard = Shard([], {})
    for member in archive:
        suffix = PurePosixPath(member.name).suffix.lower()
        if _harmless(member) and suffix in SUFFIXES:
            shard.images.append((escape(member.name), member.offset_data, member.size))
        elif _harmless(member) and suffix in FACTS and member.size <= LARGEST_FACTS:
            file = archive.extractfile(member)
            shard.facts.setdefault(sample_of(escape(member.name)), {}).update(
                _facts(suffix, file.read() if file else b"")
            )
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps each member it has met
    return shard


def _harmless(member: tarfile.TarInfo) -> bool:
    """Plain files alone, no links or devices; none that leads out of the shard."""
    parts = member.name.replace("\\", "/").split("/")
    return member.isreg() and not member.issparse() and parts[0] != "" and ".." not in parts


def _facts(suffix: str, content: bytes) -> dict[str, str]:
    """label, category and split, as far as a sample's file names them."""
    text = content.decode(errors="replace").strip()
    if suffix != ".json":
        return {"label": text} if text and len(text.splitlines()) == 1 else {}
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    named = found if isinstance(found, dict) else {}
    plain = {name: named.get(name) for name in ("label", "category", "split")}
    return {name: str(value) for name, value in plain.items() if isinstance(value, str | int) and str(value)}
