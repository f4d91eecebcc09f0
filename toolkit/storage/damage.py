"""Find damaged files, and set them aside, so that they are not read again, with one line of warning."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.errors import CacheError, CannotRead
from toolkit.storage.records import read_record

log = logging.getLogger(__name__)
_passed_over: set[Path] = set()
WHOLE, DAMAGED, UNREADABLE = "whole", "damaged", "cannot be read"


def set_aside(path: Path, then: str) -> str:
    """Rename a damaged file to `<name>.damaged`, and log and return a line with its name and what happens next
    (`then`).

    The user need not do anything. In a read-only folder the file stays and is ignored.
    """
    try:
        path.replace(path.with_name(path.name + ".damaged"))
        line = f"{path} was damaged and is set aside: {then}."
    except FileNotFoundError:
        line = f"{path} was gone: {then}."
    except OSError:
        line = f"{path} is damaged and cannot be renamed, so it is ignored: {then}."
        if path in _passed_over:
            return line
        _passed_over.add(path)
    log.warning(line)
    return line


def record_if_whole(path: Path, then: str) -> dict[str, Any] | None:
    """The record that `write_record` wrote; None if there is none, or if it is damaged, which is set aside. Raises
    CannotRead."""
    if not path.exists():
        return None
    try:
        return read_record(path)
    except CannotRead:
        raise
    except CacheError:
        set_aside(path, then)
        return None


def checked(
    record: Path, files: Callable[[Mapping[str, Any]], Mapping[Path, str]] = lambda _: {}
) -> list[dict[str, str]]:
    """A dict (path, state `whole`, `damaged` or `cannot be read`) for a record, and for each file whose SHA-256 it
    holds. `files` takes those from the record's content. Changes nothing."""
    try:
        facts = read_record(record)
    except CacheError as error:
        return [_said(record, UNREADABLE if isinstance(error, CannotRead) else DAMAGED)]
    return [_said(record, WHOLE), *(state(path, partial(_has, path, known)) for path, known in files(facts).items())]


def state(path: Path, is_whole: Callable[[], bool]) -> dict[str, str]:
    """What `cache verify` reports of a file."""
    try:
        return _said(path, WHOLE if is_whole() else DAMAGED)
    except CannotRead:
        return _said(path, UNREADABLE)


def _said(path: Path, state: str) -> dict[str, str]:
    return {"path": str(path), "state": state}


def _has(path: Path, sha256: str) -> bool:
    return file_sha256(path) == sha256


def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a file's bytes, in hex; None if there is none. Raises CannotRead."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotRead(f"Cannot read {path}: {error.strerror}.") from error
