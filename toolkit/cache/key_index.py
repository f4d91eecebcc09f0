"""An index from keys to segments, with 12 bytes a row: it may give false positives, never false negatives."""

from collections.abc import Sequence

import numpy as np


class KeyIndex:
    """The first 8 bytes of each stored key, sorted, with the number of its segment.

    Eight bytes may coincide, so the index only tells which segments to search. There all 32 bytes are compared.
    """

    def __init__(self) -> None:
        self._starts = np.empty(0, np.uint64)
        self._segments = np.empty(0, np.uint32)

    def add(self, keys: Sequence[np.ndarray], numbers: Sequence[int]) -> None:
        """Add segments, given by their keys `[N]` S32 and their numbers."""
        if not keys:
            return
        starts = np.concatenate([_starts(one) for one in keys])
        segments = np.repeat(np.array(numbers, np.uint32), [len(one) for one in keys])
        order = np.argsort(starts, kind="stable")
        places = np.searchsorted(self._starts, starts[order], side="right")
        self._starts = np.insert(self._starts, places, starts[order])
        self._segments = np.insert(self._segments, places, segments[order])

    def segments_of(self, keys: np.ndarray) -> list[int]:
        """The sorted numbers of all segments that may hold some of these keys `[N]` S32."""
        starts = _starts(keys)
        first = np.searchsorted(self._starts, starts, side="left")
        after = np.searchsorted(self._starts, starts, side="right")
        found = first < after
        several = np.flatnonzero(after - first > 1)
        more = [self._segments[first[i] : after[i]] for i in several.tolist()]
        return np.unique(np.concatenate([self._segments[first[found]], *more])).tolist()


def _starts(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys).view(np.uint64)[::4].copy()
