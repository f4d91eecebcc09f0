"""A list in the cache of images that cannot be decoded, by SHA-256, so that no command tries them again."""

from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import write_record

FILE = "unreadable.json"


def read(cache: Path) -> dict[str, str]:
    """SHA-256 -> the reason. Empty if there is no list yet, or if it is damaged."""
    again = "the next embed meets unreadable images again and lists them anew"
    return record_if_whole(cache / FILE, again) or {}


def add(cache: Path, found: Mapping[str, str]) -> None:
    """Add images (SHA-256 -> the reason) to the list. Safe with concurrent processes."""
    if not found:
        return
    with FileLock(cache / f".{FILE}.lock"):
        write_record(cache / FILE, {**read(cache), **found})
