"""Exact nearest neighbours with FAISS, and a memory for repeated searches among nearly the same vectors.

We have our own `Memory` because a FAISS index with an IDSelector scans vectors one by one. For ten held-out categories,
20,000 vectors of 512 columns, 4,000 queries and 25 neighbours it takes 59 s of CPU time; ten searches without a
selector take 8.2 s, the memory 4.5 s (101 neighbours: 8.2 s and 4.2 s). The memory only helps if categories are held
out in turn.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from toolkit.storage.libraries import faiss

Found = tuple[np.ndarray, np.ndarray]
"""Cosines `[Q, k]` float32 and row numbers `[Q, k]` int64, nearest first."""

ROOM = 320
FEW_FOLDS = 32
VECTORS_AT_ONCE = 4096
"""FAISS's block size for vectors; with its default, 1,024, a search takes 10 % longer."""

log = logging.getLogger(__name__)


def search(vectors: np.ndarray, queries: np.ndarray, k: int) -> Found:
    """The `k` nearest of `vectors` `[N, D]` to each query `[Q, D]`, all of unit length, by exhaustive search."""
    library = faiss()
    library.cvar.distance_compute_blas_database_bs = VECTORS_AT_ONCE
    log.info("FAISS, exhaustive search: %d nearest of %d vectors to %d", k, len(vectors), len(queries))
    similarities, rows = library.knn(queries, vectors, k, metric=library.METRIC_INNER_PRODUCT)
    return similarities, rows


def search_outside_their_fold(vectors: np.ndarray, numbers: np.ndarray, queries: np.ndarray, k: int) -> Found:
    """The `k` nearest neighbours from other folds, for the rows `queries` `[Q]`; `numbers` `[N]` are fold numbers.

    With few folds, there is one search per fold, among the rows of the other folds. With many folds, one search for
    `3 k` neighbours serves all; queries with too few neighbours from other folds are searched again.
    """
    own = numbers[queries]
    if len(np.unique(own)) > FEW_FOLDS:
        wide = search(vectors, vectors[queries], min(3 * k, len(vectors)))
        found, short = _first_allowed(wide, numbers[wide[1]] != own[:, None], k)
    else:
        found = np.empty((len(own), k), dtype=np.float32), np.empty((len(own), k), dtype=np.int64)
        short = np.arange(len(own))
    for number in np.unique(own[short]):
        others, mine = np.flatnonzero(numbers != number), short[own[short] == number]
        found[0][mine], rows = search(vectors[others], vectors[queries[mine]], k)
        found[1][mine] = others[rows]
    return found


def _first_allowed(wide: Found, allowed: np.ndarray, k: int) -> tuple[Found, np.ndarray]:
    """The first `k` allowed neighbours of each query, and the numbers of the queries with fewer than `k`."""
    first = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(wide[0], first, axis=1), np.take_along_axis(wide[1], first, axis=1)
    return found, np.flatnonzero(np.take_along_axis(allowed, first, axis=1).sum(axis=1) < k)


class Memory:
    """Remembers neighbours between searches among mostly the same vectors, as when each category is held out in turn.

    For each query it keeps the `ROOM` nearest of all vectors seen so far. A search keeps only those among its own
    vectors; queries with too few left are searched again.
    """

    def __init__(self) -> None:
        self.vectors = _Rows()
        self.queries = _Rows()
        self.wide: Found = np.empty((0, ROOM), dtype=np.float32), np.empty((0, ROOM), dtype=np.int64)

    def search(self, vectors: np.ndarray, queries: np.ndarray, k: int) -> Found:
        """The same as `search`, except for the order of equal cosines."""
        if k > ROOM:
            return search(vectors, queries, k)
        numbers = self._learn(vectors)
        asked = self._ask(queries)
        places = np.full(len(self.vectors) + 1, -1, dtype=np.int64)  # the last entry is for lists that are not full
        places[numbers] = np.arange(len(vectors))
        rows = places[self.wide[1][asked]]
        found, short = _first_allowed((self.wide[0][asked], rows), rows >= 0, k)
        if len(short):
            found[0][short], found[1][short] = search(vectors, queries[short], k)
        return found

    def _learn(self, vectors: np.ndarray) -> np.ndarray:
        """The number of each vector. New vectors are compared with all earlier queries."""
        first = len(self.vectors)
        numbers, new = self.vectors.add(vectors)
        if len(new) and len(self.queries):
            queries = np.concatenate(self.queries.parts)
            self.wide = _nearest_of_both(self.wide, _wide(new, queries, first))
        return numbers

    def _ask(self, queries: np.ndarray) -> np.ndarray:
        """The number of each query. New queries are searched among all vectors seen so far."""
        numbers, new = self.queries.add(queries)
        if len(new):
            nearest, first = _wide(self.vectors.parts[0], new, 0), len(self.vectors.parts[0])
            for part in self.vectors.parts[1:]:
                nearest, first = _nearest_of_both(nearest, _wide(part, new, first)), first + len(part)
            self.wide = np.concatenate([self.wide[0], nearest[0]]), np.concatenate([self.wide[1], nearest[1]])
        return numbers


class _Rows:
    """Rows numbered by content, in order of first appearance; a row that occurs twice in a matrix has two numbers."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.numbers: dict[tuple[bytes, int], int] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each row's number, and the new rows."""
        first, times = len(self.numbers), Counter[bytes]()
        numbers = np.empty(len(rows), dtype=np.int64)
        for place, row in enumerate(rows):
            content = hashlib.blake2b(row.data, digest_size=16).digest()
            numbers[place] = self.numbers.setdefault((content, times[content]), len(self.numbers))
            times[content] += 1
        new = rows[numbers >= first]
        self.parts += [new] if len(new) else []
        return numbers, new


def _wide(vectors: np.ndarray, queries: np.ndarray, first: int) -> Found:
    """The `ROOM` nearest vectors, numbered from `first`; padded with -1 if there are fewer."""
    similarities, rows = search(vectors, queries, min(ROOM, len(vectors)))
    missing = ((0, 0), (0, ROOM - rows.shape[1]))
    return np.pad(similarities, missing, constant_values=-np.inf), np.pad(rows + first, missing, constant_values=-1)


def _nearest_of_both(one: Found, other: Found) -> Found:
    similarities = np.concatenate([one[0], other[0]], axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :ROOM]
    rows = np.concatenate([one[1], other[1]], axis=1)
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(rows, order, axis=1)


_MEMORY: ContextVar[Memory | None] = ContextVar("memory", default=None)
_MEMORIES: WeakKeyDictionary[Any, Memory] = WeakKeyDictionary()


@contextmanager
def remembering(owner: Any) -> Iterator[None]:
    """Inside the block, calls of `nearest` share one memory per `owner`; it is freed with the owner."""
    token = _MEMORY.set(_MEMORIES.setdefault(owner, Memory()))
    try:
        yield
    finally:
        _MEMORY.reset(token)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> Found:
    """`search`, using the memory of the surrounding `remembering` block if there is one."""
    memory = _MEMORY.get()
    return memory.search(vectors, queries, k) if memory else search(vectors, queries, k)
