"""Results with more than two labels: the figures of each class, and which labels are confused."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from toolkit.evaluation import columns
from toolkit.evaluation.metrics import confusion

MACRO = {
    "balanced_accuracy": "Balanced accuracy",
    "f1": "Macro F1",
    "log_loss": "Log loss",
    "top5_accuracy": "Top-5 accuracy",
    "roc_auc": "Macro ROC AUC",
    "top_calibration_error": "Calibration error",
}
"""Column of an `all` row -> heading: the figures shown besides accuracy with more than two labels."""

HARMONIC_MEAN = "Harmonic mean"
"""Heading of the column `harmonic_mean`, which is filled if labels are held out."""


@dataclass(frozen=True)
class Pair:
    """A kind of mistake: `count` of the `of` test images of `label` were predicted as `called`."""

    label: str
    called: str
    count: int
    of: int


def labels_of_row(text: str) -> list[str]:
    """The column `labels` as a list; empty if a row has none."""
    found: list[str] = json.loads(text or "[]")
    return found


def has_more_than_two(table: pl.DataFrame) -> pl.Expr:
    """An expression: whether a row (of results or predictions) is about more than two labels."""
    wanted = [text for text in table["labels"].unique().to_list() if len(labels_of_row(text)) > 2]
    return pl.col("labels").is_in(wanted)


def counts(predictions: pl.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The confusion matrix `[labels, labels]` int64 of one head on one test set: rows are true labels."""
    return confusion(predictions["label"].to_numpy(), predictions["predicted"].to_numpy(), labels)


def worst_pairs(matrix: np.ndarray, labels: Sequence[str], most: int) -> list[Pair]:
    """Up to `most` kinds of mistakes in a confusion matrix, the most frequent first."""
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(one), len(labels)) for one in order if wrong.flat[one]]
    totals = matrix.sum(axis=1)
    return [Pair(labels[true], labels[called], int(wrong[true, called]), int(totals[true])) for true, called in places]


def worst_first(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of classes with test images; within each head and test set, the lowest recall first."""
    rows = table.filter((pl.col("class") != "all") & (pl.col("support") > 0)).with_row_index("row")
    groups = rows.with_columns(first=pl.col("row").min().over(columns.KEY))
    return groups.sort("first", "recall", "row").drop("first", "row")


def most_accurate(table: pl.DataFrame) -> pl.DataFrame:
    """The `all` row of the most accurate head on each test set of each comparison, in the order of the table; in a tie,
    the first."""
    every = table.filter(pl.col("class") == "all").with_row_index("row")
    by = [*columns.COMPARISON, *columns.TEST]
    best = every.sort("accuracy", descending=True, maintain_order=True).unique(by, keep="first", maintain_order=True)
    return best.sort("row").drop("row")
