"""What heads share: scaling to unit length, softmax, and the folds of cross-validation."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from toolkit.encoders.record import INSIDE, Sees

FOLDS = 5
VECTORS: frozenset[str] = frozenset({Sees.LAST_LAYER, *INSIDE})
"""The kinds of vectors that a head on embeddings takes."""
MOST_COLUMNS = 4096
"""With more columns than this a Hessian would be too large, so problems are solved in the span of the rows
(`row_space`)."""
BY_DEFAULT = "default"
"""In `choice_`: cross-validation was impossible, since a label has only one image; the default was taken."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """`[N, D]` -> float32 of unit length; a zero vector stays zero."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return vectors / np.where(lengths > 0, lengths, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits `[N, classes]` -> probabilities `[N, classes]` float64."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def row_space(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis `[D, N]` of the span of fewer rows than columns `[N, D]` -> coordinates `[N, N]`, basis.

    Lengths and inner products do not change. A model that depends on these alone (L2-regularised weights, a covariance
    shrunk towards the identity) can be solved in the coordinates: `basis @ weights` are its weights in the columns.
    """
    from scipy.linalg import qr  # numpy's computes in float64 and takes twice as long

    basis, coordinates = qr(X.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(coordinates.T), basis


def is_wide(X: np.ndarray) -> bool:
    """Whether `[N, D]` has more than `MOST_COLUMNS` columns."""
    return X.shape[1] > MOST_COLUMNS


def rows_to_choose_on(X: np.ndarray, codes: np.ndarray, seed: int) -> np.ndarray:
    """Sorted numbers of the rows for cross-validation: all, or if rows are wide a random `MOST_COLUMNS` of
    them and what rare classes lack."""
    if not is_wide(X) or len(X) <= MOST_COLUMNS:
        return np.arange(len(X))
    return with_rare_classes(np.random.default_rng(seed).choice(len(X), MOST_COLUMNS, replace=False), codes)


def with_rare_classes(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`rows`, random numbers of rows, sorted; and of each class of `codes` `[N]` as many more as make `FOLDS` of it."""
    lacking = FOLDS - np.bincount(codes[rows], minlength=codes.max() + 1)
    wanted = lacking[codes] > 0
    wanted[rows] = False
    more = np.flatnonzero(wanted)
    more = more[np.argsort(codes[more], kind="stable")]
    of_class, first = np.unique(codes[more], return_index=True)
    place = np.arange(len(more)) - first[np.searchsorted(of_class, codes[more])] if len(more) else more
    return np.sort(np.concatenate([rows, more[place < lacking[codes[more]]]]))


def fold_numbers(
    y: np.ndarray, groups: np.ndarray | None, choose_by: str, seed: int = 0, at_most: int = FOLDS
) -> tuple[np.ndarray, str]:
    """The fold `[N]` int64 in which each row is held out, and the kind of folds: `category`, `folds` or `default`.

    `category` holds out one category at a time, as the novel test does. If there are fewer than two categories, or one
    that some class needs, it falls back to `at_most` stratified random folds. If a class has only one row,
    cross-validation is impossible: all rows are in fold 0, and `usable_folds` returns none.
    """
    if choose_by == "category" and groups is not None:
        numbers = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)
        if _usable(y, numbers):
            return numbers, "category"
    from sklearn.model_selection import StratifiedKFold

    count = min(at_most, int(np.unique(y, return_counts=True)[1].min()))
    numbers = np.zeros(len(y), dtype=np.int64)
    if count < 2:
        return numbers, BY_DEFAULT
    splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(y[:, None], y)
    for number, (_, held_out) in enumerate(splits):
        numbers[held_out] = number
    return numbers, "folds"


def folds(numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit on, rows held out) of each fold."""
    for number in np.unique(numbers):
        held_out = numbers == number
        yield np.flatnonzero(~held_out), np.flatnonzero(held_out)


def usable_folds(codes: np.ndarray, numbers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The folds whose training rows contain every class; `codes` `[N]` are class numbers."""
    return [fold for fold, whole in zip(folds(numbers), _every_class_remains(codes, numbers), strict=True) if whole]


def _usable(y: np.ndarray, numbers: np.ndarray) -> bool:
    return numbers.max(initial=0) > 0 and all(_every_class_remains(np.unique(y, return_inverse=True)[1], numbers))


def _every_class_remains(codes: np.ndarray, numbers: np.ndarray) -> list[bool]:
    """For each fold in order, whether the rows outside it contain every class."""
    inside = np.zeros((numbers.max() + 1, codes.max() + 1), dtype=np.int64)
    np.add.at(inside, (numbers, codes), 1)
    remain = (inside.sum(axis=0) > inside).all(axis=1)
    return [bool(whole) for whole in remain[inside.sum(axis=1) > 0]]


class Tried(NamedTuple):
    """A setting that was chosen in a grid. No value is beyond its end `natural` (one neighbour, no depth)."""

    name: str
    value: float
    grid: Sequence[float]
    natural: float | None = None


def at_edge(*tried: Tried) -> dict[str, list[str]]:
    """For `choice_`: `{"at_edge": ["C = 0.1"]}` where settings are at an end of their grids; else nothing."""
    found = [
        f"{one.name} = {one.value:g}"
        for one in tried
        for end in dict.fromkeys([one.grid[0], one.grid[-1]])
        if len(one.grid) > 1 and end != one.natural and math.isclose(one.value, end, rel_tol=0.01)
    ]
    return {"at_edge": found} if found else {}


def log_loss(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Mean of -log P(right class); `[N, classes]` and class numbers `[N]`."""
    right = probabilities[np.arange(len(codes)), codes]
    return float(-np.log(np.clip(right, 1e-12, None)).mean())


@dataclass(frozen=True)
class LeftOut:
    """What a head says of training rows that a fit with its chosen settings did not see.

    `rows` `[M]` are their numbers among the training rows, `folds` `[M]` the numbers of the folds that they were left
    out in, `probabilities` `[M, classes]` in the order of the head's classes. A fitted head has one as `left_out_`;
    None where nothing could be left out.
    """

    rows: np.ndarray
    folds: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, outs: Sequence[np.ndarray], probabilities: Sequence[np.ndarray]) -> "LeftOut | None":
        """From the row numbers and the probabilities of each fold; None without folds."""
        if not outs:
            return None
        numbers = np.repeat(np.arange(len(outs)), [len(out) for out in outs])
        return cls(np.concatenate(outs), numbers, np.concatenate(probabilities))

    def log_loss(self, codes: np.ndarray) -> float:
        """The mean over the folds of their log loss; `codes` `[N]` are the class numbers of all training rows."""
        each = [self.folds == number for number in np.unique(self.folds)]
        return float(np.mean([log_loss(self.probabilities[fold], codes[self.rows[fold]]) for fold in each]))
