"""The contents of a tar shard, from its headers. They are stored, as reading them means walking through the whole
shard."""

import json
import tarfile
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.data.images import HEAD, formats
from toolkit.data.manifest import escape
from toolkit.data.sources.files import fingerprint, in_full, open_binary
from toolkit.data.sources.listing import why_no_picture
from toolkit.data.sources.vocabulary import COLUMNS, left_behind, plain_column
from toolkit.errors import DataError
from toolkit.storage import kept
from toolkit.version import code_version

BLOCK = 512
LARGEST_FACTS = 1 << 16
FACTS = (".json", ".cls", ".txt")
"""Suffixes of files with labels, the most reliable first."""
LONGEST_TEXT = 64
"""Longer texts in a .json are captions and addresses, not columns to split by."""


@dataclass(frozen=True)
class Shard:
    """`images`: (escaped name, offset, size) in their order; `facts`: label, category, split and further texts from
    each other file, by its name; `passed_over`: (name, reason) of skipped files."""

    images: list[tuple[str, int, int]]
    facts: dict[str, dict[str, str]]
    passed_over: list[tuple[str, str]]


def index_of(place: str, folder: Path | None) -> Shard:
    """The contents of a shard (path or address), from `folder` if they are stored there.

    Raises DataError unless it is a complete, uncompressed tar.
    """
    mark = fingerprint(place) if folder else None
    if folder is None or mark is None:
        return _read(place)
    record = folder / f"{sha256(in_full(place).encode()).hexdigest()[:32]}.json"
    state = f"{mark} {code_version()} {' '.join(formats())}"
    if found := kept.read(record, state, "the shard's headers are read again"):
        facts, _ = found
        images = [(name, offset, size) for name, offset, size in facts["images"]]
        return Shard(images, facts["facts"], [(name, reason) for name, reason in facts["passed_over"]])
    shard = _read(place)
    kept.write(record, state, asdict(shard), {})
    return shard


def _read(place: str) -> Shard:
    try:
        with open_binary(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            shard = _walk(archive)
            file.seek(archive.offset)
            if file.read(BLOCK) != bytes(BLOCK):  # tarfile takes an invalid header for the end
                raise DataError(f"{place} is damaged or cut off behind byte {archive.offset:,}: fetch it again.")
            return shard
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        hint = "; compressed shards cannot be read in place: unpack the .gz" if place.endswith((".gz", ".tgz")) else ""
        raise DataError(f"{place} cannot be read as a tar shard: {str(error)[:120]}{hint}.") from error


def _walk(archive: tarfile.TarFile) -> Shard:
    shard = Shard([], {}, [])
    for member in archive:
        name = escape(member.name)
        if not member.isdir():
            reason = _note(shard, archive, member, name) if _harmless(member) else "a link, or its name leads elsewhere"
            shard.passed_over.extend([(name, reason)] if reason else [])
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps each member it has met
    return shard


def _note(shard: Shard, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> str | None:
    """Record an image, or the fields of another file. Returns the reason for skipping, if any."""

    def content(size: int) -> bytes:
        file = archive.extractfile(member)
        return file.read(size) if file else b""

    suffix = PurePosixPath(name).suffix.lower()
    if suffix in FACTS and not left_behind(name):
        if member.size > LARGEST_FACTS:
            return f"too large to describe an image ({suffix})"
        shard.facts[name] = _facts(suffix, content(LARGEST_FACTS))
        return None
    reason = why_no_picture(name, lambda _: content(HEAD))
    if reason is None:
        shard.images.append((name, member.offset_data, member.size))
    return reason


def _harmless(member: tarfile.TarInfo) -> bool:
    """Whether a member is a regular file with a safe name: no link, no device, no `..`."""
    parts = member.name.replace("\\", "/").split("/")
    return member.isreg() and not member.issparse() and parts[0] != "" and ".." not in parts


def _facts(suffix: str, content: bytes) -> dict[str, str]:
    """Label, category, split and further short texts in a sample's file."""
    text = content.decode(errors="replace").strip().removeprefix("\ufeff")
    if suffix != ".json":
        return {"label": text} if text and len(text.splitlines()) == 1 else {}
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    named = {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}
    facts = {name: value for name, value in named.items() if isinstance(value, str) and len(value) <= LONGEST_TEXT}
    spelled = {plain_column(name): name for name in reversed(named)}
    for meaning in ("label", "category", "split"):
        column = next((spelled.pop(word) for word in COLUMNS[meaning] if word in spelled), "")
        value = named.get(column)
        facts.pop(column, None)
        if isinstance(value, str | int) and str(value):
            facts[meaning] = str(value)
    return facts
