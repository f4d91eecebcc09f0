"""What heads share: unit length, and the folds in which they choose."""

from collections.abc import Iterator

import numpy as np

FOLDS = 5


def unit(vectors: np.ndarray) -> np.ndarray:
    """`[N, D]` -> float32 of unit length; a vector of zeros stays as it is."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
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


def _usable(y: np.ndarray, numbers: np.ndarray) -> bool:
    classes = len(np.unique(y))
    return numbers.max(initial=0) > 0 and all(len(np.unique(y[numbers != n])) == classes for n in np.unique(numbers))


def log_loss(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Mean of -log P(right class); `[N, classes]` and class numbers `[N]`."""
    right = probabilities[np.arange(len(codes)), codes]
    return float(-np.log(np.clip(right, 1e-12, None)).mean())
