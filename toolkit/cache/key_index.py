"""Where a cache's keys are, in 12 bytes a row: an index that may give false positives, never false negatives."""

from collections.abc import Sequence

import numpy as np


class KeyIndex:
    """The first 8 bytes of every stored key, sorted, and the number of the segment that holds it.

    Eight bytes can be forged, so this only says which segments are worth looking into: whoever wants to know whether a
    key is there compares all 32 bytes with those in the segment's file.
    """

    def __init__(self) -> None:
        self._starts = np.empty(0, np.uint64)
        self._segments = np.empty(0, np.uint32)

    def add(self, keys: Sequence[np.ndarray], numbers: Sequence[int]) -> None:
        """Add segments: the keys `[N]` S32 of each, and its number."""
        if not keys:
            return
        starts = np.concatenate([_starts(one) for one in keys])
        segments = np.repeat(np.array(numbers, np.uint32), [len(one) for one in keys])
        order = np.argsort(starts, kind="stable")
        places = np.searchsorted(self._starts, starts[order], side="right")
        self._starts = np.insert(self._starts, places, starts[order])
        self._segments = np.insert(self._segments, places, segments[order])

    def segments_of(self, keys: np.ndarray) -> list[int]:
        """The numbers, in their order, of all segments that may hold some of these keys `[N]` S32."""
        starts = _starts(keys)
        first = np.searchsorted(self._starts, starts, side="left")
        after = np.searchsorted(self._starts, starts, side="right")
        found = first < after
        several = np.flatnonzero(after - first > 1)
        more = [self._segments[first[i] : after[i]] for i in several.tolist()]
        return np.unique(np.concatenate([self._segments[first[found]], *more])).tolist()


def _starts(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys).view(np.uint64)[::4].copy()
