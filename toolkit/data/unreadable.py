"""A list in the cache of images that cannot be decoded, by SHA-256, so that no command tries them again.

There is one for each set of libraries that decode: where HEIF or a newer Pillow is installed, images are tried anew. So
are images that did not fit into memory, on a machine with another amount of it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from toolkit.data.images import NO_MEMORY, decoders
from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import write_record

FILE = "unreadable.json"


def read(cache: Path) -> dict[str, str]:
    """SHA-256 -> the reason. Empty if there is no list yet, or if it is damaged."""
    lists = _lists(cache)
    return {**lists.get(decoders(), {}), **lists.get(_memory(), {})}


def add(cache: Path, found: Mapping[str, str]) -> None:
    """Add images (SHA-256 -> the reason) to the list. Safe with concurrent processes."""
    if not found:
        return
    with FileLock(cache / f".{FILE}.lock"):
        lists = _lists(cache)
        for key, reason in found.items():
            lists.setdefault(_memory() if reason == NO_MEMORY else decoders(), {})[key] = reason
        write_record(cache / FILE, lists)


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB"
    except (AttributeError, OSError, ValueError):  # not on Windows
        return "unknown memory"


def _lists(cache: Path) -> dict[str, dict[str, str]]:
    """What `images.decoders` or `_memory` says -> the list. That of earlier versions, which named neither, is left
    out."""
    again = "the next embed meets unreadable images again and lists them anew"
    return {by: found for by, found in (record_if_whole(cache / FILE, again) or {}).items() if isinstance(found, dict)}
