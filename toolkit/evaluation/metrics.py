"""Metrics with confidence intervals. Names are those of the results table's columns (docs/results.md)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from toolkit.evaluation.intervals import REPLICATES, drawn_together, named, percentiles, wilson
from toolkit.evaluation.probabilities import of_probabilities


class Counts(NamedTuple):
    """For each class `[..., classes]`: true positives, predicted images, and true images."""

    hits: np.ndarray
    predicted: np.ndarray
    support: np.ndarray


def confusion(y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The confusion matrix `[classes, classes]`: rows are true classes, columns predicted ones."""
    return _table(_codes(y_true, classes), _codes(y_pred, classes), len(classes))


def _table(codes: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(codes * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _codes(y: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Labels `[N]` -> class numbers `[N]` int64."""
    number = {label: index for index, label in enumerate(classes)}
    return np.array([number[label] for label in y], dtype=np.int64)


def summarise(
    y_true: np.ndarray, y_pred: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], seed: int = 0
) -> list[dict[str, Any]]:
    """One dict for each class and one for `all`, with the metric columns of the results table.

    `y_true`, `y_pred` `[N]` are labels, `probabilities` `[N, classes]` float64 in the order of `classes`. Precision of
    a class that is never predicted, and recall of a class without images, are 0.0. `all` has the means over the classes
    (with more than two, over those with images) and bootstrap intervals. AUC, average precision, Brier score and
    calibration error are those of `probabilities.of_probabilities`.
    """
    codes, predicted = _codes(y_true, classes), _codes(y_pred, classes)
    counts = _table(codes, predicted, len(classes))
    seen, drawn = _counted(counts), _resampled(counts, seed)
    there = np.flatnonzero(seen.support) if len(classes) > 2 else np.arange(len(classes))
    total, right = len(codes), int(seen.hits.sum())
    shared = {"accuracy": right / total, **named("accuracy", wilson(right, total))}
    shared["balanced_accuracy"] = float(_recall(seen)[there].mean())
    each, of_all = of_probabilities(codes, predicted, probabilities, seed)
    f1s, drawn_there = _f1(drawn), (drawn.support > 0) | (seen.support == 0)
    rows = [
        {"class": label, **_class_row(seen, f1s, index), **shared, **each[index]} for index, label in enumerate(classes)
    ]
    overall: dict[str, Any] = {"class": "all", "support": total}
    for name, metric in (("precision", _precision), ("recall", _recall), ("f1", _f1)):
        overall[name] = float(metric(seen)[there].mean())
        means = metric(drawn)[:, there].mean(axis=1, where=drawn_there[:, there])
        overall |= named(name, percentiles(means))
    return [*rows, {**overall, **shared, **of_all}]


def _class_row(seen: Counts, f1s: np.ndarray, index: int) -> dict[str, Any]:
    hits, predicted, support = (int(count[index]) for count in seen)
    return {
        "precision": float(_precision(seen)[index]),
        "recall": float(_recall(seen)[index]),
        "f1": float(_f1(seen)[index]),
        "support": support,
        **named("precision", wilson(hits, predicted)),
        **named("recall", wilson(hits, support)),
        **named("f1", percentiles(f1s[:, index])),
    }


def _counted(counts: np.ndarray) -> Counts:
    return Counts(np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1))


def _resampled(counts: np.ndarray, seed: int) -> Counts:
    """The counts of `REPLICATES` bootstrap samples `[REPLICATES, classes]`, stratified by true class; classes
    with few images are one stratum (`intervals.drawn_together`)."""
    rng = np.random.default_rng(seed)
    hits, predicted = (np.zeros((REPLICATES, len(counts)), dtype=np.int64) for _ in range(2))
    support = np.tile(counts.sum(axis=1), (REPLICATES, 1))
    few = drawn_together(support[0])
    for index in np.flatnonzero(~few):
        row = counts[index]
        shares = row / row.sum() if row.sum() else np.full(len(row), 1 / len(row))
        draws = rng.multinomial(row.sum(), shares, size=REPLICATES)
        hits[:, index] = draws[:, index]
        predicted += draws
    drawn = Counts(hits, predicted, support)
    if few.any():
        _draw_together(drawn, counts, few, rng)
    return drawn


def _draw_together(drawn: Counts, counts: np.ndarray, few: np.ndarray, rng: np.random.Generator) -> None:
    """Fill in the `few` classes, whose images are one stratum: their support is drawn, too."""
    drawn.support[:, few] = 0
    true, called = np.nonzero(counts * few[:, None])
    images = counts[true, called]
    for draws, of, to in zip(
        rng.multinomial(images.sum(), images / images.sum(), REPLICATES).T, true, called, strict=True
    ):
        drawn.hits[:, of] += draws * (of == to)
        drawn.predicted[:, to] += draws
        drawn.support[:, of] += draws


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """McNemar's exact two-sided p-value (1947), for the hypothesis that two classifiers have the same error rate.

    `first_right` and `second_right` `[N]` bool: whether each classifier was right on each of the same images.
    """
    from scipy.special import bdtr

    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), discordant, 0.5)))


def paired_difference(values: np.ndarray, strata: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The sum of `values` `[N]` float64 and its 95 % percentile interval from a stratified bootstrap over images.

    `values` are the images' contributions to the difference of two classifiers, for example `(right_1 - right_2) / N`.
    `strata` `[N]` are the strata to resample within, with their sizes kept (Efron & Tibshirani 1993, section 8.4). An
    image that was scored several times must be one entry with its total, so that it is resampled as one image.
    """
    rng = np.random.default_rng([seed, 2])
    totals = np.zeros(REPLICATES)
    for stratum in np.unique(strata):
        kinds, counts = np.unique(np.round(values[strata == stratum], 12), return_counts=True)
        totals += rng.multinomial(counts.sum(), counts / counts.sum(), size=REPLICATES) @ kinds
    return float(values.sum()), *percentiles(totals)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _precision(counts: Counts) -> np.ndarray:
    return _divide(counts.hits, counts.predicted)


def _recall(counts: Counts) -> np.ndarray:
    return _divide(counts.hits, counts.support)


def _f1(counts: Counts) -> np.ndarray:
    return _divide(2 * counts.hits, counts.predicted + counts.support)
