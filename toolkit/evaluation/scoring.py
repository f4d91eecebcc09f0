"""From predictions to the rows of the results table, without heads or encoders, so that anyone can recompute them."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from toolkit.data.held_out import LABEL
from toolkit.evaluation import columns
from toolkit.evaluation.best_of import compare_with_best
from toolkit.evaluation.intervals import named as interval
from toolkit.evaluation.intervals import wilson
from toolkit.evaluation.metrics import summarise


def score(
    predictions: pl.DataFrame, labels: Sequence[str], seed: int, threshold: float | None = None
) -> list[dict[str, Any]]:
    """The rows of the table, one per key and class, without the columns that only `compare` knows (choice, hashes).

    `predictions` has the columns of `columns.PREDICTIONS`; `labels` are the classes, in the order of `probabilities`.
    With two of them, `threshold` is the P(second label) that left-out training rows chose, if they chose one.
    """
    rows = []
    for key, group in columns.with_probabilities(predictions).group_by(columns.KEY, maintain_order=True):
        named = dict(zip(columns.KEY, key, strict=True))
        y, predicted = (group[name].to_numpy() for name in ("label", "predicted"))
        probabilities = group["probabilities"].list.to_array(len(labels)).to_numpy()
        at = {} if threshold is None or named[columns.ADAPTED] else _at(threshold, probabilities[:, 1], y == labels[1])
        rows += [{**named, **metrics, **at} for metrics in summarise(y, predicted, probabilities, labels, seed)]
    return rows


def _at(threshold: float, p: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """The accuracy if an image has the second label where its `p` `[N]` is above the threshold."""
    right, name = int(((p > threshold) == positive).sum()), columns.AT_THRESHOLD
    return {"chosen_threshold": threshold, name: right / len(p), **interval(name, wilson(right, len(p)))}


def rescore(table: pl.DataFrame, predictions: pl.DataFrame) -> list[dict[str, Any]]:
    """The metric rows of a whole results table, recomputed from its predictions."""
    rows = []
    for key, group in table.group_by(columns.KEY, maintain_order=True):
        labels = group.filter(pl.col("class") != "all")["class"].to_list()
        wanted = pl.DataFrame([key], schema=_schema(table, columns.KEY), orient="row")
        mine = predictions.join(wanted, on=columns.KEY, how="semi", nulls_equal=True, maintain_order="left")
        rows += score(mine, labels, group["seed"][0], group["chosen_threshold"][0])
    return rows


def with_p_best(table: pl.DataFrame, predictions: pl.DataFrame) -> pl.DataFrame:
    """Fill `p_best`, `p_best_corrected`, `selection_bias` and `columns.AGAINST_BEST`, among rows of the same
    comparison, test set and images.

    `p_best` is the p-value of McNemar's exact test against the most accurate row (`metrics.mcnemar`),
    `p_best_corrected` that of `best_of.compare_with_best`. Both are null for the most accurate row itself, and so are
    the differences from it; only that row has a `selection_bias`. Rows without predictions keep their values, and
    adapted rows have none.
    """
    found = []
    for rivals in _rivals(predictions):
        keys = sorted(rivals, key=repr)  # in a tie, the first by name is the best
        right = np.stack([rivals[key] for key in keys])
        result = compare_with_best(right)
        for number, key in enumerate(keys):
            is_best = number == result.best
            tested = (result.exact[number], result.p[number], *result.against[number], result.told[number])
            figures = [None] * len(tested) if is_best else map(float, tested)
            found.append((*key, *figures, result.flattery if is_best else None))
    filled = ("p_best", "p_best_corrected", *columns.AGAINST_BEST, "selection_bias")
    names = pl.Schema([*_schema(table, columns.KEY).items(), *((f"{name}_found", pl.Float64()) for name in filled)])
    every = pl.DataFrame(found, schema=names, orient="row").with_columns(tested=pl.lit(True))
    joined = table.join(every, on=columns.KEY, how="left", nulls_equal=True, maintain_order="left")
    chosen = [pl.when(pl.col("tested")).then(f"{name}_found").otherwise(name).alias(name) for name in filled]
    return joined.with_columns(chosen).select(table.columns)


def with_harmonic_mean(table: pl.DataFrame) -> pl.DataFrame:
    """Fill `harmonic_mean` of base and novel accuracy on `all` rows if labels are held out (Xian et al. 2017, section
    4.2)."""
    same = [name for name in columns.KEY if name != "test"]
    every = table.filter((pl.col("class") == "all") & (pl.col("split_by") == LABEL))
    of_test = {name: every.filter(pl.col("test") == name).select(*same, "accuracy") for name in ("base", "novel")}
    both = of_test["base"].join(of_test["novel"], on=same, nulls_equal=True, suffix="_new")
    base, new = pl.col("accuracy"), pl.col("accuracy_new")
    means = both.select(*same, mean=pl.when(base + new > 0).then(2 * base * new / (base + new)).otherwise(0.0))
    joined = table.join(means, on=same, how="left", nulls_equal=True, maintain_order="left")
    mean = pl.when(pl.col("class") == "all").then("mean")
    return joined.with_columns(harmonic_mean=mean).select(table.columns)


def _rivals(predictions: pl.DataFrame) -> list[dict[tuple[Any, ...], np.ndarray]]:
    """Groups of keys that were scored on the same images, each key with `[N]` bool: whether it was right on each."""
    rivals: dict[tuple[Any, ...], dict[tuple[Any, ...], np.ndarray]] = {}
    for key, group in columns.unadapted(predictions).group_by(columns.KEY, maintain_order=True):
        named = dict(zip(columns.KEY, key, strict=True))
        ordered = group.sort("path", "sha256")
        images = hashlib.sha256("".join(ordered["sha256"] + ordered["label"]).encode()).digest()
        same = (*(named[name] for name in [*columns.COMPARISON, *columns.TEST]), images)
        rivals.setdefault(same, {})[key] = (ordered["label"] == ordered["predicted"]).to_numpy()
    return list(rivals.values())


def _schema(table: pl.DataFrame, names: Sequence[str]) -> pl.Schema:
    return pl.Schema({name: table.schema[name] for name in names})
