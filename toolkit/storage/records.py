"""Small JSON records with a checksum, written atomically."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from toolkit.errors import CacheError, CannotRead

STALE_SECONDS = 3600


class Versioned(Protocol):
    """A dataclass whose `VERSION` names the version of its fields."""

    VERSION: ClassVar[int]


Record = TypeVar("Record", bound=Versioned)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` (JSON-able) to `path` atomically. Raises CacheError if that fails."""
    content = {"checksum": _checksum(record), "record": dict(record)}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """The record that `write_record` wrote. Raises CacheError if the file is missing, damaged, or not a record; of
    these CannotRead if nobody can tell."""
    try:
        content = json.loads(path.read_bytes())
        record: dict[str, Any] = content["record"]
        if content["checksum"] != _checksum(record):
            raise ValueError("its checksum does not fit")
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CacheError(f"The record {path} is missing or damaged ({type(error).__name__}).") from error
    except OSError as error:
        raise CannotRead(f"Cannot read {path}: {error.strerror}.") from error
    return record


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: a temporary file is synced and renamed. Raises CacheError if that fails."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # process ids may repeat across hosts
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise CacheError(f"Cannot write {path}: {error.strerror}. What was stored before is kept.") from error


def sweep(folder: Path) -> None:
    """Remove temporary files of `write_whole` that killed processes left, if they are older than an hour."""
    for leftover in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def as_plain(record: Any) -> dict[str, Any]:
    """A dataclass as a dict for `write_record`, with the `version` of its class."""
    return {"version": record.VERSION, **asdict(record)}


def of_plain(kind: type[Record], plain: Mapping[str, Any], what: str) -> Record:
    """The inverse of `as_plain`; lists become tuples, and dicts of nested records become those.

    `what` names the record in messages. Raises CacheError for another version, and for missing or unknown fields.
    """
    version, found = plain.get("version"), {name: value for name, value in plain.items() if name != "version"}
    if version != kind.VERSION:
        raise CacheError(
            f"The record of {what} has version {version}, and this toolkit reads version {kind.VERSION}: take the "
            f"newer toolkit, or remove what it describes and run the command again."
        )
    return _made(kind, found, what)


def _made(kind: type[Any], found: Mapping[str, Any], what: str) -> Any:
    wanted = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    lacking, unknown = [n for n in names if n not in found], [n for n in found if n not in names]
    if lacking or unknown:
        raise CacheError(
            f"The record of {what} was not written by this version of the toolkit. Missing fields: "
            f"{', '.join(lacking) or 'none'}. Unknown fields: {', '.join(unknown) or 'none'}."
        )
    return kind(**{name: _value(wanted[name], found[name], what) for name in names})


def _value(wanted: Any, value: Any, what: str) -> Any:
    """`value` converted to a field's type `wanted`."""
    options = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    nested = next((one for one in options if is_dataclass(one)), None)
    if nested is not None and isinstance(value, dict):
        return _made(nested, value, what)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) and any(get_origin(one) is tuple for one in options) else value
