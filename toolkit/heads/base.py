"""What heads share: unit length, and the folds in which they choose."""

from collections.abc import Iterator

import numpy as np

from toolkit.encoders.record import Sees

FOLDS = 5
VECTORS: frozenset[str] = frozenset({Sees.LAST_LAYER, Sees.BLOCKS})
"""What a head on embeddings reads."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """`[N, D]` -> float32 of unit length; a vector of zeros stays as it is."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return vectors / np.where(lengths > 0, lengths, 1)


def fold_numbers(
    y: np.ndarray, groups: np.ndarray | None, choose_by: str, seed: int = 0, at_most: int = FOLDS
) -> tuple[np.ndarray, str]:
    """Which fold each row is held out in `[N]` int64, and how: `category` or `folds`.

    `category` holds one category out at a time, which is the question that the novel test asks. Where there are fewer
    than two categories with every class on both sides, it falls back to `at_most` stratified random folds.
    """
    if choose_by == "category" and groups is not None:
        numbers = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)
        if _usable(y, numbers):
            return numbers, "category"
    from sklearn.model_selection import StratifiedKFold

    count = min(at_most, int(np.unique(y, return_counts=True)[1].min()))
    numbers = np.zeros(len(y), dtype=np.int64)
    if count >= 2:
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
