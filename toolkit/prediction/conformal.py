"""Label-conditional conformal sets, and the threshold of an operating point.

Both use a conformal quantile: of n scores, the one of rank `ceil((n + 1) * share)`. A new exchangeable score exceeds it
with probability at most `1 - share`, whatever the distribution (Vovk, Gammerman & Shafer 2005, section 2.2). This takes
so few lines that no library is used.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.errors import SelectionError


def thresholds(probabilities: np.ndarray, codes: np.ndarray, alpha: float, labels: Sequence[str]) -> np.ndarray:
    """For each label, the largest `1 - P(label)` at which it is still in an image's set, `[labels]` float64.

    `probabilities` `[N, labels]` and label numbers `codes` `[N]` are of calibration images, which the head was not
    fitted on. Each label has its own quantile (label-conditional, or Mondrian: Vovk et al. 2005, section 4.5), so that
    for each label, the expected share of its images whose set misses it is at most `alpha`, however common the label is
    among new images. Raises SelectionError if a label has fewer than `1 / alpha - 1` calibration images.
    """
    misfit = 1 - probabilities[np.arange(len(codes)), codes]
    return np.array([ranked(misfit[codes == code], 1 - alpha, label) for code, label in enumerate(labels)])


def sets(probabilities: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The labels in each image's set, `[N, labels]` bool. Where any is in it, so is the likeliest label: a set may be
    too large, and a less likely label must not be the answer because it alone is left."""
    contained = np.asarray(1 - probabilities <= limits)
    likeliest = np.eye(probabilities.shape[1], dtype=bool)[probabilities.argmax(axis=1)]
    return contained | (likeliest & contained.any(axis=1, keepdims=True))


def ranked(scores: np.ndarray, share: float, label: str) -> float:
    """The score of rank `ceil((n + 1) * share)` among the n `scores` of images of `label`.

    Raises SelectionError if n is too small for that rank.
    """
    rank = math.ceil(round((len(scores) + 1) * share, 9))  # 1000 * 0.99 is not quite 990 in floating point
    if rank > len(scores):
        needed = math.ceil(round(share / (1 - share), 9))
        raise SelectionError(
            f"{len(scores)} images of {label} to calibrate on are too few to guarantee {share:g}: {needed} or more are "
            "needed. Ask for less, give more (--calibrate), or compare on more images (--train-per-label)."
        )
    return float(np.sort(scores)[rank - 1])


def measured_sets(contained: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """Figures of sets on images with known labels: `coverage` (share of images whose set contains their label),
    `answered` (share with exactly one label), `right` (share of the answers that are right; None without answers),
    `wrong` (share of all images that are answered wrongly)."""
    single = contained.sum(axis=1) == 1
    right = contained[np.arange(len(codes)), codes]
    return {
        "images": len(codes),
        "coverage": float(right.mean()),
        "answered": float(single.mean()),
        "right": float(right[single].mean()) if single.any() else None,
        "wrong": float((single & ~right).mean()),
    }
