"""Small JSON records with a checksum, written whole or not at all."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit.errors import CacheError

STALE_SECONDS = 3600


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` (JSON-able) beside `path`, sync it, and move it there. Raises CacheError where that fails."""
    content = {"checksum": _checksum(record), "record": dict(record)}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote. Raises CacheError where the file is missing, damaged, or not such a record."""
    try:
        content = json.loads(path.read_bytes())
        record: dict[str, Any] = content["record"]
        if content["checksum"] != _checksum(record):
            raise ValueError("its checksum does not fit")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CacheError(f"The record {path} is missing or damaged ({type(error).__name__}).") from error
    return record


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all, whatever dies. Raises CacheError where that fails."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # two hosts may have equal process ids
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CacheError(f"Cannot write {path}: {error.strerror}. What was stored before is kept.") from error


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written: files of `write_whole` that nobody has touched for an hour."""
    for leftover in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
