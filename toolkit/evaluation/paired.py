"""Two classifiers on the same images: the interval of their difference in accuracy, and the smallest that is told."""

import math
from collections.abc import Sequence

import numpy as np

from toolkit.evaluation.intervals import Interval, Z, t_quantile

Z_POWER = 0.8416212335729143
"""The normal quantile of a power of 80 %."""
MARGIN = 0.02
"""By how much accuracy may be lower where two classifiers are called as good as each other, unless `--margin` says."""


def interval(gain: np.ndarray, runs: np.ndarray, of_seeds: Sequence[float] = ()) -> Interval:
    """The 95 % interval of a paired difference of accuracies.

    `gain` `[N]` is in how many of its `runs` `[N]` the first classifier alone was right on an image, minus in how many
    the second alone was; both may be weighted. One image that gained in every run and one that lost are added, so that
    the interval keeps its level with few differences, and has a width where there are none (Bonett & Price 2012,
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data"). Images with
    several runs are clusters (Cochran 1977, section 6.4).

    `of_seeds` are the differences with each draw of the training images: of several, their variance is added (Student's
    t), so that the interval covers the choice of training images, too.
    """
    middle, half = _middle_and_half(gain, runs, of_seeds)
    return max(middle - half, -1.0), min(middle + half, 1.0)


def p_value(gain: np.ndarray, runs: np.ndarray, of_seeds: Sequence[float] = ()) -> float:
    """The two-sided p-value of no difference that goes with `interval`: below 0.05 where that excludes 0."""
    middle, half = _middle_and_half(gain, runs, of_seeds)
    return math.erfc(abs(middle) * Z / (half * math.sqrt(2)))


def _middle_and_half(gain: np.ndarray, runs: np.ndarray, of_seeds: Sequence[float]) -> tuple[float, float]:
    middle, error = _centre(gain, runs)
    count = len(of_seeds)
    drawn = float(np.var(of_seeds, ddof=1)) / count * t_quantile(count - 1) ** 2 if count > 1 else 0.0
    return middle, math.sqrt((Z * error) ** 2 + drawn)


def _centre(gain: np.ndarray, runs: np.ndarray) -> tuple[float, float]:
    """The middle of `interval`, and the standard error that the images alone give it."""
    mean = float(runs.mean())
    gain, runs = np.append(gain, [mean, -mean]), np.append(runs, [mean, mean])
    total = float(runs.sum())
    middle = float(gain.sum()) / total
    return middle, math.sqrt(float(((gain - middle * runs) ** 2).sum())) / total


def smallest_told(gain: np.ndarray, runs: np.ndarray) -> float:
    """The smallest difference of accuracies that McNemar's test on so many images tells with a power of 80 %.

    `gain` and `runs` are those of `interval`; they say how often the two differ. Connor 1987, with Edwards' continuity
    correction, as the exact test needs it; never below what the test needs where every difference goes the same way.
    """
    images = len(gain)
    differ = images * float((gain**2).sum()) / float(runs.sum()) ** 2
    root, first, whole = math.sqrt(images), Z * math.sqrt(differ), images + Z_POWER**2
    inside = first**2 * images - whole * (first**2 - Z_POWER**2 * differ)
    least = (first * root + math.sqrt(max(inside, 0.0))) / whole + 1 / images
    return min(max(least, (Z + Z_POWER) ** 2 / images), 1.0)
