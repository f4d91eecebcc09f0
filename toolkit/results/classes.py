"""Results of more than two labels: the figures of each class, and which labels are confused with which."""

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
"""Column of an `all` row -> its heading: what is said of more than two labels beside the accuracy."""

HARMONIC_MEAN = "Harmonic mean"
"""Heading of the column `harmonic_mean`, which is filled where labels are held out."""


@dataclass(frozen=True)
class Pair:
    """`count` of the `of` test images of `label` were called `called`, which is another label."""

    label: str
    called: str
    count: int
    of: int


def labels_of_row(text: str) -> list[str]:
    """The column `labels` as a list; empty where a row has none."""
    found: list[str] = json.loads(text or "[]")
    return found


def has_more_than_two(table: pl.DataFrame) -> pl.Expr:
    """Which rows (of results or predictions) are about more than two labels."""
    wanted = [text for text in table["labels"].unique().to_list() if len(labels_of_row(text)) > 2]
    return pl.col("labels").is_in(wanted)


def counts(predictions: pl.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The confusion matrix `[labels, labels]` int64 of one head on one test set: true label down, predicted across."""
    return confusion(predictions["label"].to_numpy(), predictions["predicted"].to_numpy(), labels)


def worst_pairs(matrix: np.ndarray, labels: Sequence[str], most: int) -> list[Pair]:
    """The `most` frequent mistakes of a confusion matrix, the most frequent first; fewer where there are fewer."""
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(one), len(labels)) for one in order if wrong.flat[one]]
    totals = matrix.sum(axis=1)
    return [Pair(labels[true], labels[called], int(wrong[true, called]), int(totals[true])) for true, called in places]


def worst_first(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the classes that have test images, those of each head and test set with the lowest recall first."""
    rows = table.filter((pl.col("class") != "all") & (pl.col("support") > 0)).with_row_index("row")
    groups = rows.with_columns(first=pl.col("row").min().over(columns.KEY))
    return groups.sort("first", "recall", "row").drop("first", "row")


def most_accurate(table: pl.DataFrame) -> pl.DataFrame:
    """The `all` row of the most accurate head on each test set of each comparison; of equally good ones the first."""
    every = table.filter(pl.col("class") == "all")
    by = [*columns.COMPARISON, *columns.TEST]
    return every.sort("accuracy", descending=True, maintain_order=True).unique(by, keep="first", maintain_order=True)
