"""What heads share: unit length, and the folds in which they choose."""

from collections.abc import Iterator

import numpy as np

from toolkit.encoders.record import Sees

FOLDS = 5
VECTORS: frozenset[str] = frozenset({Sees.LAST_LAYER, Sees.BLOCKS})
"""What a head on embeddings reads."""
MOST_COLUMNS = 4096
"""Wider rows are not solved in their columns, of which a Hessian would be too large: see `row_space`."""
BY_DEFAULT = "default"
"""How a head chose that could leave nothing out, a label having one image alone: it took its default."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """`[N, D]` -> float32 of unit length; a vector of zeros stays as it is."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return vectors / np.where(lengths > 0, lengths, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """`[N, classes]` -> shares that add up to one, `[N, classes]` float64."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def row_space(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows `[N, D]` of more columns than rows, by their coordinates `[N, N]` where they lie; and the basis `[D, N]`.

    Lengths and inner products stay. What these alone decide (weights that a quadratic penalty holds, a covariance
    shrunk to the identity) lies there, too, and is found there: `basis @ weights` are the weights in columns.
    """
    from scipy.linalg import qr  # numpy's would work in float64 and take twice as long

    basis, coordinates = qr(X.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(coordinates.T), basis


def is_wide(X: np.ndarray) -> bool:
    """Whether rows `[N, D]` are of more than `MOST_COLUMNS` columns."""
    return X.shape[1] > MOST_COLUMNS


def rows_to_choose_on(X: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of the rows that choose, in order: all, or `MOST_COLUMNS` by chance where rows are wide."""
    if not is_wide(X) or len(X) <= MOST_COLUMNS:
        return np.arange(len(X))
    return np.sort(np.random.default_rng(seed).choice(len(X), MOST_COLUMNS, replace=False))


def fold_numbers(
    y: np.ndarray, groups: np.ndarray | None, choose_by: str, seed: int = 0, at_most: int = FOLDS
) -> tuple[np.ndarray, str]:
    """Which fold each row is held out in `[N]` int64, and how: `category`, `folds` or `default`.

    `category` holds one category out at a time, which is the question that the novel test asks. Where there are fewer
    than two categories with every class on both sides, it falls back to `at_most` stratified random folds. Where a
    class has one row alone, nothing can be left out: all rows are in fold 0, and `usable_folds` finds none.
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
    """Those folds that leave rows of every class to fit on; `codes` `[N]` are the numbers of the classes."""
    return [fold for fold, whole in zip(folds(numbers), _every_class_remains(codes, numbers), strict=True) if whole]


def _usable(y: np.ndarray, numbers: np.ndarray) -> bool:
    return numbers.max(initial=0) > 0 and all(_every_class_remains(np.unique(y, return_inverse=True)[1], numbers))


def _every_class_remains(codes: np.ndarray, numbers: np.ndarray) -> list[bool]:
    """For each fold in order, whether the rows outside it hold every class."""
    inside = np.zeros((numbers.max() + 1, codes.max() + 1), dtype=np.int64)
    np.add.at(inside, (numbers, codes), 1)
    remain = (inside.sum(axis=0) > inside).all(axis=1)
    return [bool(whole) for whole in remain[inside.sum(axis=1) > 0]]


def log_loss(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Mean of -log P(right class); `[N, classes]` and class numbers `[N]`."""
    right = probabilities[np.arange(len(codes)), codes]
    return float(-np.log(np.clip(right, 1e-12, None)).mean())
