"""What was found out once and is kept: a record with files beside it, read whole or not at all.

None of it is needed. Where it cannot be written it is made again, and a damaged file is set aside.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit.errors import CacheError, CannotRead
from toolkit.storage.damage import record_if_whole, set_aside
from toolkit.storage.records import read_record, write_record, write_whole

LISTINGS, FITS = "listings", "fits"
"""The folders in a cache: of the contents of zips and tar shards and the built-in sample, and of fitted heads."""


def write(record: Path, state: str, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Keep `facts` (JSON-able) and `files` (suffix -> bytes), which were made from what `state` describes."""
    with suppress(CacheError):
        for suffix, data in files.items():
            write_whole(record.with_suffix(suffix), data)
        hashes = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in files.items()}
        write_record(record, {**facts, "state": state, "files": hashes})


def read(record: Path, state: str, then: str) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """The facts and files that `write` kept; None if there are none of this `state`. `then` says what happens if they
    are damaged."""
    try:
        facts = record_if_whole(record, then)
    except CannotRead:
        return None
    if facts is None or facts.get("state") != state:
        return None
    files = {}
    for suffix, expected in facts["files"].items():
        place = record.with_suffix(suffix)
        try:
            files[suffix] = place.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(files[suffix]).hexdigest() != expected:
            if record_if_whole(record, then) == facts:  # else another process has just kept something newer
                set_aside(place, then)
            return None
    return facts, files


def records(cache: Path) -> list[Path]:
    """The records of all that is kept in this cache."""
    return sorted([*(cache / LISTINGS).glob("*.json"), *(cache / FITS).glob("*/*.json")])


def remove(cache: Path, encoder: str) -> None:
    """Remove the heads that were fitted on the vectors of the encoder with this identity."""
    for record in (cache / FITS).glob("*/*.json"):
        with suppress(CacheError):  # a damaged one is set aside when it is read
            facts = read_record(record)
            if facts.get("encoder") == encoder:
                for path in [record, *files_of(record, facts)]:
                    path.unlink(missing_ok=True)


def files_of(record: Path, facts: Mapping[str, Any]) -> dict[Path, str]:
    """The files beside a record with these facts, and the SHA-256 of each."""
    return {record.with_suffix(suffix): known for suffix, known in facts.get("files", {}).items()}
