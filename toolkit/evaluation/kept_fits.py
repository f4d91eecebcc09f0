"""Fitted heads, kept in the cache: what was fitted once is not fitted again with the next `compare`.

A fit is found by a hash of all that went into it: the head with its settings and prompts, vectors, labels, groups and
the toolkit's code. Fits of other code are removed.
"""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ResultsError
from toolkit.heads import Head, stored
from toolkit.heads.base import unit
from toolkit.storage import kept
from toolkit.version import code_version

SUFFIX = ".safetensors"
LARGEST = 64 << 20
"""Larger heads are fitted again: they hold training vectors, which the cache has already."""

log = logging.getLogger(__name__)


def place_of(
    folder: Path, head: Head, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, more: Sequence[object]
) -> Path | None:
    """Where the fit of `head`, not fitted yet, on these rows is kept, whether or not it is there.

    `more` is what else decides its `choice_`. None for a head that cannot be kept, and for one that learns nothing.
    """
    if not head.learns:
        return None
    try:
        parts = [stored.to_bytes(head)]
    except TypeError:
        return None
    parts += ["\n".join(map(str, column)).encode() for column in (y, () if groups is None else groups)]
    parts += [f"{X.shape} {X.dtype} {list(more)}".encode()]
    hashed = [hashlib.sha256(part).digest() for part in parts]
    hashed.append(hashlib.sha256(np.ascontiguousarray(X).view(np.uint8).data).digest())
    return folder / code_version() / f"{hashlib.sha256(b''.join(hashed)).hexdigest()[:32]}.json"


def read(place: Path, X: np.ndarray) -> tuple[Any, float] | None:
    """The head that was fitted on vectors `X`, and how many seconds that took; None if it is not there or damaged."""
    found = kept.read(place, "", "this head is fitted again")
    if found is None:
        return None
    facts, files = found
    try:
        head = stored.from_bytes(files[SUFFIX], str(place))
    except ResultsError:  # not written by this toolkit
        return None
    if facts["vectors"] == "cache":
        head.vectors_ = unit(X)
    log.info("%s was fitted before: %s", type(head).__name__, head.choice_)
    return head, float(facts["seconds"])


def write(place: Path, head: Head, X: np.ndarray, seconds: float) -> None:
    """Keep a fitted head, and that it took so many seconds to fit."""
    try:
        with stored.without_vectors(head, unit(X)) as in_cache:
            data = stored.to_bytes(head)
    except TypeError:
        return
    if len(data) > LARGEST:
        return
    _remove_others(place.parent)
    kept.write(place, "", {"seconds": seconds, "vectors": "cache" if in_cache else "file"}, {SUFFIX: data})


def _remove_others(mine: Path) -> None:
    """Remove the fits of other code, if there are none of this code yet."""
    if not mine.exists() and mine.parent.is_dir():
        for other in mine.parent.iterdir():
            shutil.rmtree(other, ignore_errors=True)
