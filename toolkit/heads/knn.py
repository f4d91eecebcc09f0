"""k-nearest neighbours with FAISS (Ojha et al. 2023, section 4.2, detect fakes by neighbours in CLIP's space)."""

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.heads import partitioned
from toolkit.heads.base import VECTORS, LeftOut, Tried, at_edge, fold_numbers, unit
from toolkit.heads.classifier import Classifier
from toolkit.heads.neighbours import Found, nearest, search_outside_their_fold

K_GRID = (1, 3, 5, 9, 15, 25, 51, 101)
WEIGHTINGS = ("uniform", "similarity")
SHARPNESS = 0.07
MOST_QUERIES = 5_000
"""So many training rows choose k. In 19 of 20 draws the choice is at most 0.001 of log loss worse than that of all
rows; with 2,000 it is 0.005 (python -m benchmarks draws)."""


class NearestNeighbours(Classifier):
    """P(class) is the share of the `k` nearest training vectors by cosine, weighted equally or by similarity.

    `k` and the weighting are those with the lowest log loss over the held-out folds. One extra neighbour, split evenly
    among the classes, smooths the share, so that no P is 0 or 1; it never changes the most likely class. The search is
    exact up to `partitioned.EXACT_UP_TO` vectors and approximate beyond; then `choice_` and `notes_` give the recall.
    """

    reads = VECTORS
    needs_prompts = False
    learns = True
    parameters_ = 0

    def __init__(self, choose_by: str = "category", k_grid: tuple[int, ...] = K_GRID, seed: int = 0):
        self.choose_by = choose_by
        self.k_grid = k_grid
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "NearestNeighbours":
        """Index `X` `[N, D]` with `y` `[N]`; `groups` `[N]` are the categories, the folds that choose `k`."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.vectors_ = unit(X)
        self.classes_, self.codes_ = np.unique(y, return_inverse=True)
        numbers, how = fold_numbers(np.asarray(y), groups, self.choose_by, self.seed)
        large = len(X) > partitioned.EXACT_UP_TO
        self.partition_ = partitioned.partition(self.vectors_, self.seed) if large else None
        self.choice_ = {**self._choose(numbers), "by": how, **partitioned.describe(self.partition_)}
        self.notes_ = [partitioned.note(self.partition_)] if self.partition_ else []
        self.k_, self.weighting_ = int(self.choice_["k"]), str(self.choice_["weighting"])
        return self

    def _choose(self, numbers: np.ndarray) -> dict[str, Any]:
        """The `k` and weighting with the lowest log loss, and `left_out_`; the neighbours of each row are searched
        outside its fold."""
        self.left_out_: LeftOut | None = None
        largest_fold = int(np.bincount(numbers).max())
        grid = [k for k in self.k_grid if k <= len(numbers) - largest_fold] or [1]
        if numbers.max() == 0:
            return {"k": grid[0], "weighting": WEIGHTINGS[0], "log_loss": None}
        queries = np.arange(len(numbers))
        if len(queries) > MOST_QUERIES:
            queries = np.sort(np.random.default_rng(self.seed).choice(queries, MOST_QUERIES, replace=False))
        similarities, neighbours = self._outside_their_fold(numbers, queries, grid[-1])
        scored = []
        for weighting in WEIGHTINGS:
            for k in grid:
                shares = self._shares(similarities[:, :k], neighbours[:, :k], weighting)
                left_out = LeftOut(queries, numbers[queries], shares)
                scored.append((left_out.log_loss(self.codes_), k, weighting, left_out))
        loss, k, weighting, self.left_out_ = min(scored, key=lambda one: one[0])
        edge = at_edge(Tried("k", k, grid, natural=1))
        return {"k": k, "weighting": weighting, "log_loss": round(loss, 4), **edge}

    def _outside_their_fold(self, numbers: np.ndarray, queries: np.ndarray, k: int) -> Found:
        if self.partition_:
            return partitioned.search_outside_their_fold(self.vectors_, self.partition_, numbers, queries, k)
        return search_outside_their_fold(self.vectors_, numbers, queries, k)

    def _nearest(self, queries: np.ndarray) -> Found:
        if self.partition_:
            return partitioned.search(self.vectors_, self.partition_, queries, self.k_)
        return nearest(self.vectors_, queries, self.k_)

    def _shares(self, similarities: np.ndarray, neighbours: np.ndarray, weighting: str) -> np.ndarray:
        """`[Q, k]` similarities and row numbers of neighbours -> P(class) `[Q, classes]` float64."""
        weights = np.ones(similarities.shape)
        if weighting == "similarity":
            weights = np.exp((similarities - similarities[:, :1]).astype(np.float64) / SHARPNESS)
        codes = self.codes_[neighbours]
        votes = np.stack([(weights * (codes == code)).sum(axis=1) for code in range(len(self.classes_))], axis=1)
        k = neighbours.shape[1]
        return (k * votes / votes.sum(axis=1, keepdims=True) + 1 / len(self.classes_)) / (k + 1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        similarities, neighbours = self._nearest(unit(X))
        return self._shares(similarities, neighbours, self.weighting_)
