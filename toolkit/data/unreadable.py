"""A list in the cache of images that cannot be decoded, by SHA-256, so that no command tries them again."""

from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from toolkit.errors import CacheError
from toolkit.storage.damage import set_aside
from toolkit.storage.records import read_record, write_record

FILE = "unreadable.json"


def read(cache: Path) -> dict[str, str]:
    """SHA-256 -> the reason. Empty if there is no list yet, or if it is damaged."""
    try:
        return dict(read_record(cache / FILE)) if (cache / FILE).exists() else {}
    except CacheError:
        set_aside(cache / FILE, "the next embed meets unreadable images again and lists them anew")
        return {}


def add(cache: Path, found: Mapping[str, str]) -> None:
    """Add images (SHA-256 -> the reason) to the list. Safe with concurrent processes."""
    if not found:
        return
    with FileLock(cache / f".{FILE}.lock"):
        write_record(cache / FILE, {**read(cache), **found})
