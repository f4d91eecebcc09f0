"""A list in the cache of images that cannot be decoded, by SHA-256, so that no command tries them again.

There is one for each set of libraries that decode: where HEIF or a newer Pillow is installed, images are tried anew.
"""

from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from toolkit.data.images import NO_MEMORY, decoders
from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import write_record

FILE = "unreadable.json"


def read(cache: Path) -> dict[str, str]:
    """SHA-256 -> the reason. Empty if there is no list yet, or if it is damaged."""
    return _lists(cache).get(decoders(), {})


def add(cache: Path, found: Mapping[str, str]) -> None:
    """Add images (SHA-256 -> the reason) to the list, but for those that another machine may have the memory for. Safe
    with concurrent processes."""
    lasting = {key: reason for key, reason in found.items() if reason != NO_MEMORY}
    if not lasting:
        return
    with FileLock(cache / f".{FILE}.lock"):
        lists = _lists(cache)
        write_record(cache / FILE, {**lists, decoders(): {**lists.get(decoders(), {}), **lasting}})


def _lists(cache: Path) -> dict[str, dict[str, str]]:
    """What `images.decoders` says -> the list. That of earlier versions, which named no libraries, is left out."""
    again = "the next embed meets unreadable images again and lists them anew"
    return {by: found for by, found in (record_if_whole(cache / FILE, again) or {}).items() if isinstance(found, dict)}
