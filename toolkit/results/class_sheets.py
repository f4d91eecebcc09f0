"""The workbook's sheets for more than two labels: figures per class, confusion matrices, mistakes, predictions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from toolkit.evaluation import columns
from toolkit.results import classes
from toolkit.results.sheets import WHICH, Formats, named, write_with_note

MOST_LABELS = 100
"""Up to this many labels, a confusion matrix is written; the sheet Mistakes covers more."""
MOST_MATRICES, MOST_PAIRS, MOST_PREDICTIONS = 20, 200, 50_000
"""At most this many matrices, mistakes per head, and images are written."""

ABOUT_CLASSES = (
    "The figures of each class on unperturbed test images; for each encoder and head, the lowest recall first. "
    "from, to: the ends of Wilson's 95 % interval of the figure to the left."
)
ABOUT_CONFUSION = (
    "Confusion matrix of the most accurate encoder and head on each test set: rows are true labels, columns predicted "
    "labels. Empty is 0."
)
ABOUT_MISTAKES = "Mistakes of the most accurate encoder and head on each test set, the most frequent first."
ABOUT_PREDICTIONS = (
    f"Predictions of the most accurate encoder and head on each test set, for at most {MOST_PREDICTIONS:,} images. "
    "predictions.csv has all encoders and heads, and the probability of each label."
)

WHO = named(*WHICH, "seed", "test")

PER_CLASS = {"class": "Class", "support": "Images", "recall": "Recall", "recall_low": "Recall from"}
PER_CLASS |= {"recall_high": "Recall to", "precision": "Precision", "precision_low": "Precision from"}
PER_CLASS |= {"precision_high": "Precision to", "f1": "F1", "roc_auc": "ROC AUC"}
PER_CLASS |= {"average_precision": "Average precision", **named("train_per_label", "labels")}

MISTAKES = {"label": "True label", "called": "Called", "count": "Images", "of": "of", "share": "Share"}

EACH = {"path": "Path", "label": "True label", "predicted": "Predicted label", "p_predicted": "P(predicted)"}
EACH |= {"p_label": "P(true label)"}


def add(book: Any, table: pl.DataFrame, predictions: pl.DataFrame | None, formats: Formats) -> None:
    """Add the sheets *Per class*, *Confusion*, *Mistakes* and *Predictions* to the workbook if there are more than two
    labels. `table` and `predictions` are those of the results folder; without `predictions`, only *Per class* is added.
    """
    plain = columns.ordinary(table)
    plain = plain.filter(classes.has_more_than_two(plain))
    if plain.is_empty():
        return
    _classes_sheet(book.add_worksheet("Per class"), plain, formats)
    if predictions is not None:
        best = list(_best(plain, predictions))
        _confusion_sheet(book.add_worksheet("Confusion"), best, formats)
        _mistakes_sheet(book.add_worksheet("Mistakes"), best, formats)
        _predictions_sheet(book.add_worksheet("Predictions"), [rows for _, rows, _ in best], formats)


Best = tuple[dict[str, Any], pl.DataFrame, list[str]]


def _best(plain: pl.DataFrame, predictions: pl.DataFrame) -> Iterator[Best]:
    """For the most accurate head on each test set: its `all` row, its predictions, and the labels."""
    named = [name for name in predictions.columns if name != "probabilities"]
    for row in classes.most_accurate(plain).iter_rows(named=True):
        mine = pl.all_horizontal(pl.col(name).eq_missing(pl.lit(row[name])) for name in columns.KEY)
        labels = plain.filter(mine & (pl.col("class") != "all"))["class"].to_list()
        yield row, predictions.filter(mine).select(named), labels


def _classes_sheet(sheet: Any, plain: pl.DataFrame, formats: Formats) -> None:
    headings = WHO | PER_CLASS
    rows = classes.worst_first(plain)
    write_with_note(sheet, ABOUT_CLASSES, rows, formats, headings, "class")
    sheet.autofilter(1, 0, max(1 + len(rows), 2), len(headings) - 1)


def _confusion_sheet(sheet: Any, best: list[Best], formats: Formats) -> None:
    sheet.write_string(0, 0, ABOUT_CONFUSION, formats["note"])
    sheet.set_column(0, 0, 24)
    sheet.freeze_panes(0, 1)
    top = 2
    for row, rows, labels in best[:MOST_MATRICES]:
        sheet.write_string(top, 0, ", ".join(f"{name}: {row[key]}" for key, name in WHO.items() if row[key] != ""))
        if len(labels) > MOST_LABELS:
            sheet.write_string(top + 1, 0, f"{len(labels)} labels: see the sheet Mistakes.", formats["note"])
            top += 3
        else:
            _matrix(sheet, top + 1, classes.counts(rows, labels), labels, formats)
            top += len(labels) + 3


def _matrix(sheet: Any, top: int, counts: np.ndarray, labels: list[str], formats: Formats) -> None:
    """Write a confusion matrix with labels in row `top` and column 0; the diagonal is green, mistakes are red."""
    sheet.write_string(top, 0, "true \\ predicted", formats["head"])
    for number, label in enumerate(labels, start=1):
        sheet.write_string(top, number, label, formats["number_head"])
        sheet.write_string(top + number, 0, label, formats["text"])
    for (true, called), count in np.ndenumerate(counts):
        if count:
            look = formats["good"] if true == called else formats["plain"]
            sheet.write_number(top + 1 + true, 1 + called, int(count), look)
    wrong = counts - np.diag(np.diagonal(counts))
    scale = {"type": "2_color_scale", "min_color": "#FFFFFF", "max_color": "#F08A80", "min_type": "num"}
    for place in range(len(labels)):  # the diagonal keeps its own colour
        for first, last in ((0, place - 1), (place + 1, len(labels) - 1)):
            if first <= last and wrong.max():
                limits = {"min_value": 0, "max_type": "num", "max_value": int(wrong.max())}
                sheet.conditional_format(top + 1 + place, 1 + first, top + 1 + place, 1 + last, scale | limits)


def _mistakes_sheet(sheet: Any, best: list[Best], formats: Formats) -> None:
    kinds = [pl.String, pl.String, pl.Int64, pl.Int64, pl.Float64]
    found = []
    for row, rows, labels in best:
        pairs = classes.worst_pairs(classes.counts(rows, labels), labels, MOST_PAIRS)
        found += [
            (*(row[name] for name in WHO), one.label, one.called, one.count, one.of, one.count / one.of)
            for one in pairs
        ]
    schema = {name: columns.RESULTS[name][0] for name in WHO} | dict(zip(MISTAKES, kinds, strict=True))
    rows = pl.DataFrame(found, schema=schema, orient="row")
    write_with_note(sheet, ABOUT_MISTAKES, rows, formats, WHO | MISTAKES, "test")


def _predictions_sheet(sheet: Any, of_each: list[pl.DataFrame], formats: Formats) -> None:
    headings = WHO | EACH
    rows = pl.concat(of_each).head(MOST_PREDICTIONS)
    write_with_note(sheet, ABOUT_PREDICTIONS, rows, {**formats, "share": formats["number"]}, headings, "path")
    sheet.autofilter(1, 0, max(1 + len(rows), 2), len(headings) - 1)
