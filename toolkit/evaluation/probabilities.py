"""Metrics of probabilities: with two labels, of P(second label); with more, of each label against the rest."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from toolkit.evaluation.intervals import REPLICATES, Interval, Z, named, percentiles

BINS = 15
TOP = 5
"""The k of top-k accuracy, which is computed for more than k labels."""

Metrics = dict[str, Any]


def of_probabilities(
    codes: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, seed: int
) -> tuple[list[Metrics], Metrics]:
    """The metrics of each class, and of all classes together.

    `codes` and `predicted` `[N]` int64 are the numbers of the true and the predicted classes, `probabilities`
    `[N, classes]` float64. With two classes, AUC, average precision, Brier score and calibration error are of P(second
    class), the same for both classes. With more, they are of each class against the rest (except the Brier score), and
    the overall value is the mean over the classes that have one. AUC and average precision are NaN for a class without
    images or with all of them.
    """
    count = probabilities.shape[1]
    shared = {
        "log_loss": log_loss(codes, probabilities),
        "top_calibration_error": calibration_error(codes == predicted, probabilities[np.arange(len(codes)), predicted]),
        "top5_accuracy": top_accuracy(codes, probabilities, TOP) if count > TOP else None,
    }
    if count == 2:
        shared |= _of_second(codes == 1, probabilities[:, 1], seed)
        return [shared] * 2, shared
    shared["brier"] = float(((probabilities - np.eye(count)[codes]) ** 2).sum(axis=1).mean())
    each, overall = _against_the_rest(codes, probabilities)
    return [{**shared, **one} for one in each], {**shared, **overall}


def _of_second(positive: np.ndarray, p: np.ndarray, seed: int) -> Metrics:
    """Metrics of P(second class); `positive` is whether the second class is true."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    both = bool(positive.any() and not positive.all())
    return {
        "roc_auc": float(roc_auc_score(positive, p)) if both else math.nan,
        **named("roc_auc", auc_interval(positive, p, seed) if both else (math.nan, math.nan)),
        "average_precision": float(average_precision_score(positive, p)) if both else math.nan,
        "brier": float(np.mean((p - positive) ** 2)),
        "calibration_error": calibration_error(positive, p),
    }


def _against_the_rest(codes: np.ndarray, probabilities: np.ndarray) -> tuple[list[Metrics], Metrics]:
    """Metrics of each class against the rest, and their means. The AUCs' intervals are DeLong's, since a bootstrap for
    a hundred classes takes a minute."""
    each: list[Metrics] = []
    together, areas = np.zeros(len(codes)), 0
    for positive, p in _sides(codes, probabilities):
        one = {"calibration_error": calibration_error(positive, p)}
        if positive.any() and not positive.all():
            area, parts = auc_parts(positive, p)
            together, areas = together + parts, areas + 1
            one |= {"roc_auc": area, **named("roc_auc", _delong(area, parts, positive))}
            one["average_precision"] = average_precision(positive, p)
        each.append(one | {name: math.nan for name in NEED_BOTH if name not in one})
    overall = {name: _mean([one[name] for one in each]) for name in ("roc_auc", "average_precision")}
    low, high = _delong(overall["roc_auc"], together / areas, codes) if areas else (math.nan, math.nan)
    errors = [each[code]["calibration_error"] for code in np.unique(codes)]
    return each, {**overall, "roc_auc_low": low, "roc_auc_high": high, "calibration_error": _mean(errors)}


NEED_BOTH = ("roc_auc", "roc_auc_low", "roc_auc_high", "average_precision")


def _sides(codes: np.ndarray, probabilities: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for code, p in enumerate(np.ascontiguousarray(probabilities.T)):
        yield codes == code, p


def log_loss(codes: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log P(true class), with P clipped by float64's epsilon as in scikit-learn."""
    least = np.finfo(np.float64).eps
    right = probabilities[np.arange(len(codes)), codes]
    return float(-np.log(np.clip(right, least, 1 - least)).mean())


def top_accuracy(codes: np.ndarray, probabilities: np.ndarray, top: int) -> float:
    """Share of images whose class is among the `top` most likely; ties are broken by class order."""
    mine = probabilities[np.arange(len(codes)), codes][:, None]
    before = np.arange(probabilities.shape[1]) < codes[:, None]
    ahead = (probabilities > mine) | ((probabilities == mine) & before)
    return float((ahead.sum(axis=1) < top).mean())


def calibration_error(positive: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error of the probabilities `p` `[N]` of `positive` `[N]` bool, over `BINS` bins of equal
    width (Guo et al. 2017, section 2)."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs(p[bins == b].sum() - positive[bins == b].sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(p))


def average_precision(positive: np.ndarray, p: np.ndarray) -> float:
    """Average precision as in scikit-learn, without its checks, which take most of the time with many classes."""
    order = np.argsort(-p, kind="stable")
    hits, last_of_equals = np.cumsum(positive[order]), np.append(np.diff(p[order]) != 0, True)
    precision = (hits / np.arange(1, len(p) + 1))[last_of_equals]
    recall = (hits / hits[-1])[last_of_equals]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def auc_interval(positive: np.ndarray, p: np.ndarray, seed: int) -> Interval:
    """The 95 % percentile interval of the ROC AUC from a stratified bootstrap; ties count half."""
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
    return percentiles(areas / (len(groups[True]) * len(groups[False])))


def auc_parts(positive: np.ndarray, p: np.ndarray) -> tuple[float, np.ndarray]:
    """The ROC AUC (ties count half) and the images' contributions `[N]` to it: the share of correctly ordered pairs
    with the other class, divided by the number of images of the own class (DeLong et al. 1988, section 3)."""
    parts, (inside, outside) = np.empty(len(p)), (p[positive], p[~positive])
    parts[positive] = _share_below(outside, inside) / len(inside)
    parts[~positive] = (1 - _share_below(inside, outside)) / len(outside)
    return float(parts[positive].sum()), parts


def _share_below(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The share of `values` below each of `limits`; equal values count half."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, limits, "left") + np.searchsorted(ordered, limits, "right")) / (2 * len(values))


def _delong(area: float, parts: np.ndarray, strata: np.ndarray) -> Interval:
    """DeLong's 95 % interval of an AUC, or of a mean of several, from the images' contributions and their `strata`
    `[N]`. It is a normal interval on the logit scale, so that it stays between 0 and 1 (Pepe 2003, section 5.2)."""
    sides = [parts[strata == stratum] for stratum in np.unique(strata)]
    variance = sum(len(side) * side.var(ddof=1) for side in sides if len(side) > 1)
    if not 0 < area < 1:
        return area, area
    middle, half = math.log(area / (1 - area)), Z * math.sqrt(variance) / (area * (1 - area))
    return tuple(1 / (1 + math.exp(-limit)) for limit in (middle - half, middle + half))  # type: ignore[return-value]


def _mean(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else math.nan
