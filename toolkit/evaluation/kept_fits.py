"""Fitted heads, kept in the cache: what was fitted once is not fitted again with the next `compare`.

A fit is found by a hash of all that went into it: the head with its settings and prompts, vectors, labels, groups, the
toolkit's code and the libraries' versions.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ResultsError
from toolkit.heads import Head, stored
from toolkit.heads.base import unit
from toolkit.storage import kept
from toolkit.storage.work import Work
from toolkit.version import code_version

SUFFIX = ".safetensors"
WEEK = 7 * 24 * 3600
LIBRARIES = ("numpy", "scipy", "scikit-learn", "faiss-cpu")
"""The packages that fit heads: with other versions they are fitted again."""
LARGEST = 64 << 20
"""Larger heads are fitted again."""

log = logging.getLogger(__name__)


def place_of(folder: Path, head: Head, went_in: Sequence[object]) -> Path | None:
    """Where the fit of `head`, which is not fitted yet, is kept, whether or not it is there.

    `went_in` is all else that decides it, as plain values or hashes. None for a head that cannot be kept, and for one
    that learns nothing.
    """
    if not head.learns:
        return None
    try:
        digest = hashlib.sha256(stored.to_bytes(head))
    except TypeError:
        return None
    digest.update(repr([*map(version, LIBRARIES), *went_in]).encode())
    return folder / code_version() / f"{digest.hexdigest()[:32]}.json"


def read(place: Path, X: np.ndarray) -> tuple[Any, Work] | None:
    """The head that was fitted on vectors `X`, and what that took; None if it is not there or damaged."""
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
    return head, Work(facts["seconds"], facts["on"])


def write(place: Path, head: Head, X: np.ndarray, took: Work, encoder: str) -> None:
    """Keep a head that was fitted on vectors `X` of the encoder with this identity, and what that took."""
    try:
        with stored.without_vectors(head, lambda: unit(X)) as in_cache:
            data = stored.to_bytes(head)
    except TypeError:
        return
    if len(data) > LARGEST:
        return
    _remove_others(place.parent)
    facts = {"seconds": took.seconds, "on": took.on, "vectors": "cache" if in_cache else "file", "encoder": encoder}
    kept.write(place, "", facts, {SUFFIX: data})


def _remove_others(mine: Path) -> None:
    """With the first fit of this code, remove those of other code that nobody added to for a week."""
    if mine.exists() or not mine.parent.is_dir():
        return
    with suppress(OSError):  # another process may be doing the same
        for other in mine.parent.iterdir():
            if other != mine and time.time() - other.stat().st_mtime > WEEK:
                shutil.rmtree(other, ignore_errors=True)
