"""Set damaged files aside, so that they are not read again, and warn about them in one line."""

import logging
from pathlib import Path

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
