"""When to answer, and where to draw the line: label-conditional conformal sets, and an operating point.

Both take the rank of a conformal quantile, `ceil((n + 1) * share)` of n scores: exchangeable scores exceed the score
of that rank with a probability of at most `1 - share`, whatever their distribution (Vovk, Gammerman & Shafer 2005,
section 2.2). That is all there is to it, so no library is asked.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.errors import SelectionError


def thresholds(odds: np.ndarray, codes: np.ndarray, alpha: float, labels: Sequence[str]) -> np.ndarray:
    """For each label the largest `1 - P(label)` with which it still belongs to an image's set, `[labels]` float64.

    `odds` `[N, labels]` and `codes` `[N]` are of calibration images, which the head was not fitted on. Each label has
    a quantile of its own (label-conditional, or Mondrian: Vovk et al. 2005, section 4.5), so that of each label's
    images at most a share `alpha` misses its own label in expectation, however common the labels are among new images.
    Raises SelectionError where a label has fewer than `1 / alpha - 1` calibration images.
    """
    misfit = 1 - odds[np.arange(len(codes)), codes]
    return np.array([ranked(misfit[codes == code], 1 - alpha, label) for code, label in enumerate(labels)])


def sets(odds: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Which labels belong to each image's set: `[N, labels]` bool. Not exactly one: no answer."""
    return np.asarray(1 - odds <= limits)


def ranked(scores: np.ndarray, share: float, label: str) -> float:
    """The score of rank `ceil((n + 1) * share)` of the n `scores`, which are images of `label`.

    Raises SelectionError where n is too small for that rank, and so for any promise.
    """
    rank = math.ceil(round((len(scores) + 1) * share, 9))  # 1000 * 0.99 is not quite 990 in floating point
    if rank > len(scores):
        needed = math.ceil(round(share / (1 - share), 9))
        raise SelectionError(
            f"{len(scores)} images of {label} to calibrate on are too few to promise {share:g}: at least {needed} are "
            "needed. Ask for less, give more (--calibrate), or compare on more images (--train-per-label)."
        )
    return float(np.sort(scores)[rank - 1])


def measured_sets(contained: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """What sets do on images whose labels are known: `coverage` (share of images whose set holds their label),
    `answered` (share with exactly one label), `right` (share of the answers that are right; None without any)."""
    single = contained.sum(axis=1) == 1
    right = contained[np.arange(len(codes)), codes]
    return {
        "images": len(codes),
        "coverage": float(right.mean()),
        "answered": float(single.mean()),
        "right": float(right[single].mean()) if single.any() else None,
        "wrong": float((single & ~right).mean()),
    }
