"""Which of several classifiers are worse than the most accurate one, given that it was picked on the same images.

A test of each row against the best row errs too often: with 11 equal heads and 2,000 images, McNemar's test calls some
row worse in two of three tables. Here the error rate is that of the whole table. The largest studentised difference of
any two rows is simulated under the hypothesis that all are equally accurate, with the covariance of the rows on the
images; a row is worse if it is farther behind than that (Tukey's range test with the covariance that the data show:
Hothorn, Bretz & Westfall 2008, section 3.1).
"""

from dataclasses import dataclass

import numpy as np

from toolkit.evaluation import paired
from toolkit.evaluation.metrics import mcnemar

DRAWS = 4_000


@dataclass(frozen=True)
class BestOf:
    """`best` is the row of the most accurate classifier, `p` `[K]` the corrected p-values that a row is as accurate,
    `exact` `[K]` McNemar's uncorrected ones; `flattery` is how much of the best accuracy is expected to come from
    picking the best on these images. `against` has each row's difference from the best with its interval, and `told`
    `[K]` the smallest difference from the best that so many images tell (`paired`)."""

    best: int
    p: np.ndarray
    exact: np.ndarray
    flattery: float
    against: list[tuple[float, float, float]]
    told: list[float]


def compare_with_best(right: np.ndarray) -> BestOf:
    """`right` `[K, N]` bool says which of N images each of K classifiers got right; of equals the first is the best.

    A corrected p-value is never below McNemar's exact one (`metrics.mcnemar`), which does without the normal
    approximation.
    """
    means = right.mean(axis=1)
    best, count = int(means.argmax()), right.shape[1]
    gains = right.astype(np.int64) - right[best]
    once = np.ones(count, np.int64)
    against = [(float(gain.mean()), *paired.interval(gain, once)) for gain in gains]
    told = [paired.smallest_told(gain, once) for gain in gains]
    if len(right) == 1:
        return BestOf(best, np.ones(1), np.ones(1), 0.0, against, told)
    covariance = np.cov(right.astype(np.float64), ddof=1 if count > 1 else 0) / count
    # Cholesky's factor is unique, where eigenvectors have signs that differ among processors.
    root = np.linalg.cholesky(covariance + 1e-9 * max(float(covariance.max()), 1e-9) * np.eye(len(right)))
    noise = np.random.default_rng([0, 3]).standard_normal((DRAWS, len(right))) @ root.T
    spread = _spread(covariance)
    behind = np.where(spread[best] > 0, (means[best] - means) / np.where(spread[best] > 0, spread[best], 1), 0.0)
    largest = _largest_difference(noise, spread)
    p = np.array([(largest >= one - 1e-12).mean() for one in behind])
    exact = np.array([mcnemar(right[best], one) for one in right])
    drawn = means + noise
    picked = drawn.argmax(axis=1)
    flattery = float((drawn - means)[np.arange(DRAWS), picked].mean())
    return BestOf(best, np.maximum(p, exact), exact, max(flattery, 0.0), against, told)


def _spread(covariance: np.ndarray) -> np.ndarray:
    """The standard error of the difference of each two rows `[K, K]`; 0 for two that are right on the same images."""
    variance = np.diag(covariance)[:, None] + np.diag(covariance)[None, :] - 2 * covariance
    return np.sqrt(np.where(variance > 1e-15, variance, 0.0))


def _largest_difference(noise: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The largest studentised difference of two rows in each draw: `[DRAWS, K]` -> `[DRAWS]`."""
    largest = np.zeros(len(noise))
    for first in range(len(spread)):
        for second in range(first):
            if spread[first, second] > 0:
                np.maximum(largest, np.abs(noise[:, first] - noise[:, second]) / spread[first, second], out=largest)
    return largest
