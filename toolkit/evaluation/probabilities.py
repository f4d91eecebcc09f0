"""Metrics of probabilities: with two labels, of P(second label); with more, of each label against the rest."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from toolkit.evaluation.intervals import REPLICATES, Interval, Z, drawn_together, named, percentiles
from toolkit.evaluation.reliability import calibration_error, error_interval, expected_error

TOP = 5
"""The k of top-k accuracy, which is computed for more than k labels."""

AT_ONCE = 1 << 16
"""As many images are drawn at once for the bootstrap of the AUC, which bounds its memory."""

Metrics = dict[str, Any]
UNKNOWN = math.nan, math.nan
"""The interval of an area where a side has no image, or a single one."""


def of_probabilities(
    codes: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, seed: int
) -> tuple[list[Metrics], Metrics]:
    """The metrics of each class, and of all classes together.

    `codes` and `predicted` `[N]` int64 are the numbers of the true and the predicted classes, `probabilities`
    `[N, classes]` float64. With two classes, AUC, average precision, Brier score and calibration error are of P(second
    class), the same for both classes. With more, they are of each class against the rest (except the Brier score), and
    the overall value is the mean over the classes that have one. AUC and average precision are NaN for a class without
    images or with all of them. The intervals of average precision and Brier score are normal ones, stratified by class,
    which a bootstrap confirms at a hundredth of its time.
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
    shared |= _brier(((probabilities - np.eye(count)[codes]) ** 2).sum(axis=1), codes, 2.0)
    each, overall = _against_the_rest(codes, probabilities, np.random.default_rng([seed, 4]))
    return [{**shared, **one} for one in each], {**shared, **overall}


def _of_second(positive: np.ndarray, p: np.ndarray, seed: int) -> Metrics:
    """Metrics of P(second class); `positive` is whether the second class is true."""
    from sklearn.metrics import roc_auc_score

    both = bool(positive.any() and not positive.all())
    return {
        "roc_auc": float(roc_auc_score(positive, p)) if both else math.nan,
        **named("roc_auc", auc_interval(positive, p, seed) if both else UNKNOWN),
        **(_of_precision(*average_precision_parts(positive, p), positive) if both else _unknown("average_precision")),
        **_brier((p - positive) ** 2, positive, 1.0),
        **_of_calibration(positive, p, np.random.default_rng([seed, 4])),
    }


def _against_the_rest(
    codes: np.ndarray, probabilities: np.ndarray, rng: np.random.Generator
) -> tuple[list[Metrics], Metrics]:
    """Metrics of each class against the rest, and their means. The AUCs' intervals are DeLong's, since a bootstrap for
    a hundred classes takes a minute."""
    each: list[Metrics] = []
    areas, precisions = [], []
    for positive, p in _sides(codes, probabilities):
        one = _of_calibration(positive, p, rng)
        if positive.any() and not positive.all():
            areas.append(_centred(*auc_parts(positive, p), positive))
            precisions.append(average_precision_parts(positive, p))
            one |= _of_area(*areas[-1], positive) | _of_precision(*precisions[-1], positive)
            if min(positive.sum(), (~positive).sum()) == 1:
                one |= named("roc_auc", UNKNOWN) | named("average_precision", UNKNOWN)
        else:
            one |= _unknown("roc_auc") | _unknown("average_precision")
        each.append(one)
    overall = _of_area(*_together(areas, len(codes)), codes) if areas else _unknown("roc_auc")
    overall |= _of_precision(*_together(precisions, len(codes)), codes) if areas else _unknown("average_precision")
    return each, overall | _mean_calibration([each[code] for code in np.unique(codes)])


def _centred(area: float, parts: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """An area and its parts, which add up to 0 in either class, so that classes can be one stratum."""
    return area, parts - np.where(positive, area / positive.sum(), area / (~positive).sum())


def _of_area(area: float, parts: np.ndarray, strata: np.ndarray) -> Metrics:
    return {"roc_auc": area, **named("roc_auc", _on_logit_scale(area, parts, strata))}


def _of_precision(precision: float, parts: np.ndarray, strata: np.ndarray) -> Metrics:
    return {"average_precision": precision, **named("average_precision", _on_logit_scale(precision, parts, strata))}


def _unknown(name: str) -> Metrics:
    return {name: math.nan, **named(name, UNKNOWN)}


def _brier(errors: np.ndarray, strata: np.ndarray, most: float) -> Metrics:
    """The Brier score from the images' squared errors `[N]`, which are at most `most`."""
    score, half = float(errors.mean()), Z * _standard_error(errors / len(errors), strata)
    return {"brier": score, **named("brier", (max(score - half, 0.0), min(score + half, most)))}


def _of_calibration(positive: np.ndarray, p: np.ndarray, rng: np.random.Generator) -> Metrics:
    return {
        "calibration_error": calibration_error(positive, p),
        **named("calibration_error", error_interval(positive, p, rng)),
        "calibration_error_expected": expected_error(p),
    }


def _mean_calibration(each: list[Metrics]) -> Metrics:
    """The means over classes, those of the ends of their intervals, too: the ends of a mean cannot be farther apart."""
    return {name: _mean([one[name] for one in each]) for name in CALIBRATION}


CALIBRATION = tuple(f"calibration_error{end}" for end in ("", "_low", "_high", "_expected"))


def _together(found: list[tuple[float, np.ndarray]], images: int) -> tuple[float, np.ndarray]:
    """The mean of several figures, and of the images' contributions `[N]` to them."""
    together = np.zeros(images)
    for _, parts in found:
        together += parts
    return float(np.mean([figure for figure, _ in found])), together / len(found)


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


def average_precision_parts(positive: np.ndarray, p: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision as in scikit-learn, and its derivatives `[N]` by the images' weights.

    These serve as `auc_parts` do: they are the infinitesimal jackknife's (Efron 1982, chapter 6).
    """
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))  # equal P are one step of the curve
    hits = np.cumsum(positive[order])[ends]
    precision, gained = hits / (ends + 1), np.diff(hits, prepend=0)
    figure = float((gained * precision).sum() / hits[-1])
    below = np.cumsum((gained / (ends + 1))[::-1])[::-1]
    lost = np.cumsum((gained * precision / (ends + 1))[::-1])[::-1]
    step = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    parts = np.empty(len(p))
    parts[order] = positive[order] * (precision - figure + below)[step] - lost[step]
    return figure, parts / hits[-1]


def auc_interval(positive: np.ndarray, p: np.ndarray, seed: int) -> Interval:
    """The 95 % percentile interval of the ROC AUC from a stratified bootstrap; ties count half. Not a number where a
    side is a single image."""
    rng = np.random.default_rng([seed, 1])
    values, group = np.unique(p, return_inverse=True)
    sides = group[positive], group[~positive]
    if min(map(len, sides)) == 1:
        return UNKNOWN
    sizes = [len(side) for side in sides]
    bounds = np.repeat(sizes, sizes) if sizes[0] != sizes[1] else sizes[0]  # one bound is drawn five times as fast
    areas: list[float] = []
    while len(areas) < REPLICATES:
        count = min(REPLICATES - len(areas), max(AT_ONCE // len(p), 1))
        drawn = np.split(rng.integers(bounds, size=(count, len(p))), sizes[:1], axis=1)
        up, down = (_counts(side[rows], len(values)) for side, rows in zip(sides, drawn, strict=True))
        areas += ((np.cumsum(down, axis=1) - down / 2) * up).sum(axis=1).tolist()
    return percentiles(np.array(areas) / (sizes[0] * sizes[1]))


def _counts(values: np.ndarray, most: int) -> np.ndarray:
    """How often each number below `most` is in each row of `values` `[R, N]`: `[R, most]`."""
    of_row = values + most * np.arange(len(values))[:, None]
    return np.bincount(of_row.ravel(), minlength=most * len(values)).reshape(len(values), most)


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


def _standard_error(parts: np.ndarray, strata: np.ndarray) -> float:
    """That of a sum of the images' contributions `[N]`, drawn within their `strata` `[N]`; those with few images are
    one (`intervals.drawn_together`)."""
    kinds, counts = np.unique(strata, return_counts=True)
    few = drawn_together(counts)
    sides = [parts[strata == kind] for kind in kinds[~few]] + [parts[np.isin(strata, kinds[few])]]
    return math.sqrt(sum(len(side) * side.var(ddof=1) for side in sides if len(side) > 1))


def _on_logit_scale(area: float, parts: np.ndarray, strata: np.ndarray) -> Interval:
    """The 95 % interval of an area (AUC: DeLong's; average precision) or of a mean of several, from the images'
    contributions `[N]` and their `strata`. It is normal on the logit scale, so that it stays between 0 and 1 (Pepe
    2003, section 5.2)."""
    if not 0 < area < 1:
        return area, area
    middle, half = math.log(area / (1 - area)), Z * _standard_error(parts, strata) / (area * (1 - area))
    return (1 + math.tanh((middle - half) / 2)) / 2, (1 + math.tanh((middle + half) / 2)) / 2


def _mean(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else math.nan
