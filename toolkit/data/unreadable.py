"""Images whose bytes could be read but not decoded, by content, so that no command stumbles over one twice."""

from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from toolkit.errors import CacheError
from toolkit.storage.damage import set_aside
from toolkit.storage.records import read_record, write_record

FILE = "unreadable.json"


def read(cache: Path) -> dict[str, str]:
    """SHA-256 -> the reason. Empty where nothing was found unreadable yet, or where the list itself is damaged."""
    try:
        return dict(read_record(cache / FILE)) if (cache / FILE).exists() else {}
    except CacheError:
        set_aside(cache / FILE, "the next embed meets unreadable images again and lists them anew")
        return {}


def add(cache: Path, found: Mapping[str, str]) -> None:
    """Remember that these contents cannot be decoded, and why. Safe beside other processes."""
    if not found:
        return
    with FileLock(cache / f".{FILE}.lock"):
        write_record(cache / FILE, {**read(cache), **found})
