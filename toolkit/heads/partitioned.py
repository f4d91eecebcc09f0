"""Approximate nearest neighbours among many vectors with an inverted file (FAISS, IndexIVFFlat).

Each vector is in the list of its nearest centroid (Sivic & Zisserman 2003; Jégou et al. 2011, section IV.A), and a
query searches the lists of the `probes` centroids nearest to it. `probes` is chosen by recall against an exhaustive
search, on a sample of the training vectors. The partition is stored as arrays; FAISS's index is rebuilt from them.
"""

from typing import Any

import numpy as np

from toolkit.heads.neighbours import Found
from toolkit.heads.neighbours import search as search_all
from toolkit.storage.libraries import faiss

EXACT_UP_TO = 500_000
"""Up to this many vectors, the search is exhaustive."""

SAMPLED_QUERIES = 500
WANTED_RECALL = 0.98
MOST_LISTS = 1 / 16
"""The largest share of lists worth searching: a vector in a list costs 13 times as much as in an exhaustive search."""
NEIGHBOURS = 25
POINTS_A_CENTROID = 64
ROUNDS = 10

Partition = dict[str, Any]
"""`centroids` `[L, D]` float32, `lists` `[N]` int32 (each vector's centroid), `probes` and `recall`."""


def partition(vectors: np.ndarray, seed: int = 0) -> Partition | None:
    """Divide `vectors` `[N, D]`, all of unit length, among about `sqrt(N)` centroids.

    `recall` is the share of the exact `NEIGHBOURS` nearest vectors that is found when `probes` lists are searched.
    `probes` is the smallest power of two that reaches `WANTED_RECALL`, measured with `SAMPLED_QUERIES` of the vectors
    (a query does not count as its own neighbour). Returns None if that needs more than `MOST_LISTS` of the lists, as
    with unclustered vectors: an exhaustive search is then no slower.
    """
    count = max(1, min(int(np.sqrt(len(vectors))), len(vectors) // POINTS_A_CENTROID))
    rng = np.random.default_rng(seed)
    made: Partition = {"centroids": _centroids(vectors, count, rng)}
    made["lists"] = search_all(made["centroids"], vectors, 1)[1][:, 0].astype(np.int32)
    queries = vectors[np.sort(rng.choice(len(vectors), min(SAMPLED_QUERIES, len(vectors)), replace=False))]
    truth, index, probes = search_all(vectors, queries, NEIGHBOURS + 1)[1], _index(vectors, made), 1
    while True:
        found = index.search(queries, NEIGHBOURS + 1, params=_parameters(probes))[1]
        both = [len(np.intersect1d(*pair)) - 1 for pair in zip(found, truth, strict=True)]
        recall = float(np.mean(both)) / NEIGHBOURS
        if recall >= WANTED_RECALL:
            return {**made, "probes": probes, "recall": round(recall, 4)}
        probes = min(2 * probes, count)
        if probes > max(1, MOST_LISTS * count):
            return None


def search(vectors: np.ndarray, made: Partition, queries: np.ndarray, k: int) -> Found:
    """The approximate `k` nearest of `vectors` to each of `queries` `[Q, D]`: cosines and row numbers `[Q, k]`."""
    return _filled(_index(vectors, made), queries, k, made, None)


def search_outside_their_fold(
    vectors: np.ndarray, made: Partition, numbers: np.ndarray, queries: np.ndarray, k: int
) -> Found:
    """The approximate `k` nearest neighbours from other folds, for the rows `queries` `[Q]`; `numbers` `[N]` are fold
    numbers."""
    index, own = _index(vectors, made), numbers[queries]
    similarities, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for number in np.unique(own):
        allowed = np.packbits(numbers != number, bitorder="little")
        mine = np.flatnonzero(own == number)
        selector = faiss().IDSelectorBitmap(allowed)
        similarities[mine], rows[mine] = _filled(index, vectors[queries[mine]], k, made, selector)
    return similarities, rows


def describe(made: Partition | None) -> dict[str, Any]:
    """The partition's sizes and recall, for `choice_`; empty if the search is exhaustive."""
    return {} if made is None else {"lists": len(made["centroids"]), "probes": made["probes"], "recall": made["recall"]}


def note(made: Partition) -> str:
    """The line that tells the user."""
    return (
        f"knn: {len(made['lists']):,} training images are more than {EXACT_UP_TO:,}, so neighbours come from an IVF "
        f"index ({made['probes']} of {len(made['centroids']):,} lists) with {made['recall']:.1%} of the exact."
    )


def _filled(index: Any, queries: np.ndarray, k: int, made: Partition, selector: Any) -> Found:
    """Search; queries that found fewer than `k` allowed vectors search more lists."""
    probes, count = made["probes"], len(made["centroids"])
    similarities, rows = index.search(queries, k, params=_parameters(probes, selector))
    while probes < count and (short := np.flatnonzero(rows[:, -1] < 0)).size:
        probes = min(4 * probes, count)
        similarities[short], rows[short] = index.search(queries[short], k, params=_parameters(probes, selector))
    return similarities, rows


def _centroids(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Spherical k-means on a sample."""
    size = min(len(vectors), count * POINTS_A_CENTROID)
    sample = vectors[np.sort(rng.choice(len(vectors), size, replace=False))]
    means = faiss().Kmeans(
        vectors.shape[1], count, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1, verbose=False
    )
    means.train(sample)
    return np.asarray(means.centroids)


def _index(vectors: np.ndarray, made: Partition) -> Any:
    """FAISS's index of a partition, without assigning the vectors to centroids again."""
    library = faiss()
    quantizer = library.IndexFlatIP(vectors.shape[1])
    quantizer.add(made["centroids"])
    index = library.IndexIVFFlat(quantizer, vectors.shape[1], len(made["centroids"]), library.METRIC_INNER_PRODUCT)
    index.is_trained = True
    numbers, lists = np.arange(len(vectors)), made["lists"].astype(np.int64)
    index.add_core(len(vectors), *map(library.swig_ptr, (np.ascontiguousarray(vectors), numbers, lists)))
    return index


def _parameters(probes: int, selector: Any = None) -> Any:
    return faiss().SearchParametersIVF(nprobe=probes, sel=selector)
