"""Metrics with their uncertainty. Columns are named as in the results table (docs/results.md).

Wilson's interval is four lines of our own and the exact test is one call of scipy.special, not scipy.stats.binomtest:
importing scipy.stats takes 0.56 s of processor time, scipy.special 0.14 s, and each interval 0.25 ms instead of 1 µs.
The page needs nothing else of scipy. The tests compare both with binomtest.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054  # the normal quantile of LEVEL, two-sided
REPLICATES = 1000
BINS = 15

Interval = tuple[float, float]


def wilson(successes: float, trials: float) -> Interval:
    """The Wilson score interval of a share at 95 % (Wilson 1927; Brown, Cai & DasGupta 2001, section 3.1.1).

    Of no trials at all it is (0, 1): nothing is known.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, Z * Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def confusion(y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """`[classes, classes]` counts: true down, predicted across."""
    number = {label: index for index, label in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, ([number[t] for t in y_true], [number[p] for p in y_pred]), 1)
    return counts


def summarise(
    y_true: np.ndarray, y_pred: np.ndarray, p_second: np.ndarray, classes: Sequence[str], seed: int = 0
) -> list[dict[str, Any]]:
    """One dict a class and one for `all`, with the metric columns of the results table.

    `y_true`, `y_pred` `[N]` are labels, `p_second` `[N]` float64 is P(second of `classes`). Precision and recall of a
    class that is never predicted, or never there, are 0.0. `all` holds the means over the classes and, as intervals,
    the bootstrap's. What needs both classes (AUC, average precision) is NaN where there is only one.
    """
    counts = confusion(y_true, y_pred, classes)
    total, right = int(counts.sum()), int(np.trace(counts))
    shared = {"accuracy": right / total, **_named("accuracy", wilson(right, total))}
    shared |= _of_probabilities(y_true == classes[1], p_second, seed)
    shared["balanced_accuracy"] = float(_recall(counts).mean())
    means = np.stack([_precision(counts), _recall(counts), _f1(counts)])
    replicates = _resampled(counts, seed)
    rows = []
    for index, label in enumerate(classes):
        rows.append({"class": label, **_class_row(counts, replicates, index, means[:, index]), **shared})
    every = [metric(replicates).mean(axis=1) for metric in (_precision, _recall, _f1)]
    overall: dict[str, Any] = {"class": "all", "support": total}
    for name, mean, spread in zip(("precision", "recall", "f1"), means.mean(axis=1), every, strict=True):
        overall |= {name: float(mean), **_named(name, _percentiles(spread))}
    return [*rows, {**overall, **shared}]


def _class_row(counts: np.ndarray, replicates: np.ndarray, index: int, values: np.ndarray) -> dict[str, Any]:
    hits, predicted, support = counts[index, index], counts[:, index].sum(), counts[index].sum()
    return {
        "precision": float(values[0]),
        "recall": float(values[1]),
        "f1": float(values[2]),
        "support": int(support),
        **_named("precision", wilson(int(hits), int(predicted))),
        **_named("recall", wilson(int(hits), int(support))),
        **_named("f1", _percentiles(_f1(replicates)[:, index])),
    }


def _resampled(counts: np.ndarray, seed: int) -> np.ndarray:
    """Confusion matrices of `REPLICATES` bootstrap samples, each with the true classes' own numbers (stratified)."""
    rng = np.random.default_rng(seed)
    draws = []
    for row in counts:
        shares = row / row.sum() if row.sum() else np.full(len(row), 1 / len(row))
        draws.append(rng.multinomial(row.sum(), shares, size=REPLICATES))
    return np.stack(draws, axis=1)


def _of_probabilities(positive: np.ndarray, p: np.ndarray, seed: int) -> dict[str, float]:
    """Metrics of P(second class) against whether it was the second class."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    both = bool(positive.any() and not positive.all())
    low, high = auc_interval(positive, p, seed) if both else (math.nan, math.nan)
    return {
        "roc_auc": float(roc_auc_score(positive, p)) if both else math.nan,
        "roc_auc_low": low,
        "roc_auc_high": high,
        "average_precision": float(average_precision_score(positive, p)) if both else math.nan,
        "brier": float(np.mean((p - positive) ** 2)),
        "calibration_error": calibration_error(positive, p),
    }


def calibration_error(positive: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error of P(second class) over `BINS` bins of equal width (Guo et al. 2017, section 2)."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs(p[bins == b].sum() - positive[bins == b].sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(p))


def auc_interval(positive: np.ndarray, p: np.ndarray, seed: int) -> Interval:
    """The 95 % percentile interval of the ROC AUC over a stratified bootstrap, ties counted half."""
    rng = np.random.default_rng([seed, 1])
    values, group = np.unique(p, return_inverse=True)
    groups = {True: group[positive], False: group[~positive]}
    areas = np.empty(REPLICATES)
    for replicate in range(REPLICATES):
        counts = [
            np.bincount(members[rng.integers(len(members), size=len(members))], minlength=len(values))
            for members in (groups[True], groups[False])
        ]
        below = np.cumsum(counts[1]) - counts[1]
        areas[replicate] = (counts[0] * (below + counts[1] / 2)).sum()
    return _percentiles(areas / (len(groups[True]) * len(groups[False])))


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """The exact two-sided p-value that two classifiers err equally often on the same images (McNemar 1947).

    `first_right` and `second_right` `[N]` bool say for each image whether the classifier was right.
    """
    from scipy.special import bdtr

    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), discordant, 0.5)))


def paired_difference(values: np.ndarray, strata: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The sum of `values` `[N]` float64 and its 95 % percentile interval over a stratified bootstrap of the images.

    `values` are what each image adds to a difference of two classifiers on the same images (say, (right of one minus
    right of the other) / N), and `strata` `[N]` what it is drawn among: as many of each stratum are drawn as there
    are (Efron & Tibshirani 1993, section 8.4). Each image is drawn with its whole value, so an image that was scored
    several times adds to the spread as the one image that it is.
    """
    rng = np.random.default_rng([seed, 2])
    totals = np.zeros(REPLICATES)
    for stratum in np.unique(strata):
        kinds, counts = np.unique(np.round(values[strata == stratum], 12), return_counts=True)
        totals += rng.multinomial(counts.sum(), counts / counts.sum(), size=REPLICATES) @ kinds
    return float(values.sum()), *_percentiles(totals)


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}_low": float(interval[0]), f"{name}_high": float(interval[1])}


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)])
    return float(low), float(high)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _precision(counts: np.ndarray) -> np.ndarray:
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-2))


def _recall(counts: np.ndarray) -> np.ndarray:
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1))


def _f1(counts: np.ndarray) -> np.ndarray:
    return _divide(2 * np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-2) + counts.sum(axis=-1))
