"""What becomes of a damaged file: it is set aside, so that nothing reads it again, and named in one line."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)
_passed_over: set[Path] = set()


def set_aside(path: Path, then: str) -> str:
    """Rename a damaged file to `<name>.damaged` and warn: a line that names it and says what happens then.

    Whoever reads the line need do nothing more. In a read-only folder the file stays where it is, and is passed over.
    """
    try:
        path.replace(path.with_name(path.name + ".damaged"))
        line = f"{path} was damaged and is set aside: {then}."
    except FileNotFoundError:
        line = f"{path} was gone: {then}."
    except OSError:
        line = f"{path} is damaged and cannot be set aside, so it is passed over: {then}."
        if path in _passed_over:
            return line
        _passed_over.add(path)
    log.warning(line)
    return line
