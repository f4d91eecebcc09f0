"""Set damaged files aside, so that they are not read again, and warn about them in one line."""

import logging
from pathlib import Path
from typing import Any

from toolkit.errors import CacheError
from toolkit.storage.records import read_record

log = logging.getLogger(__name__)
_passed_over: set[Path] = set()


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
    """The record that `write_record` wrote; None if there is none, or if it is damaged, which is set aside."""
    if not path.exists():
        return None
    try:
        return read_record(path)
    except CacheError:
        set_aside(path, then)
        return None
