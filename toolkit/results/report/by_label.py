"""What the page says of more than two labels: averages over them, which are confused, and each label's own figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from toolkit.results import classes
from toolkit.results.classes import HARMONIC_MEAN, MACRO, Pair
from toolkit.results.entrants import Entrant, Subject
from toolkit.results.report import charts, label_charts
from toolkit.results.report.pictures import Picture

MOST_ROWS = 20
"""So many labels have a row in the table of labels; the workbook has them all."""
MOST_CURVES = 10
"""So many labels have curves of their own: each costs the page 30 kB."""
MOST_PAIRS = 8


@dataclass(frozen=True)
class Averages:
    """The macro figures of one entrant on one test set, in the order of `headings`: means over its runs."""

    entrant: Entrant
    test: str
    values: list[float | None]


@dataclass(frozen=True)
class ByLabel:
    """What the section on single labels shows, of the entrant `best` on the test set that decides.

    `rows` are rows of the results with `confused`, the label that a label is most often called wrongly; the one with
    the lowest recall stands first. `curves` are of the labels at the head of `rows`.
    """

    best: Entrant
    matrix: Picture
    pairs: list[Pair]
    rows: list[dict[str, Any]]
    count: int
    curves: list[tuple[str, Picture]]

    @property
    def pictures(self) -> list[Picture]:
        return [self.matrix, *(one for _, one in self.curves)]


def headings(shown: Subject) -> dict[str, str]:
    """The macro figures that this study has, and their headings: `top5_accuracy` from six labels on."""
    every = MACRO | {"harmonic_mean": HARMONIC_MEAN}
    return {name: heading for name, heading in every.items() if shown.table[name].count()}


def averages(shown: Subject) -> list[Averages]:
    """The macro figures of every entrant on every test set."""
    names = list(headings(shown))
    every = shown.table.filter(pl.col("class") == "all")
    means = every.group_by("entrant", "test").agg(pl.col(name).drop_nans().mean() for name in names)
    found = {(key, test): list(values) for key, test, *values in means.iter_rows()}
    return [Averages(one, test, found[one.key, test]) for one in shown.entrants for test in one.scores]


def worst_labels(shown: Subject, best: Entrant, table: pl.DataFrame) -> pl.DataFrame:
    """The rows of one run's labels for `best` on the test set that decides, the lowest recall first."""
    mine = table.filter((pl.col("entrant") == best.key) & (pl.col("test") == shown.decides))
    return classes.worst_first(mine)


def by_label(
    shown: Subject, best: Entrant, ways: Sequence[Entrant], table: pl.DataFrame, predictions: pl.DataFrame
) -> ByLabel:
    """The figures of single labels in one run, whose rows `table` and `predictions` are; curves are of all `ways`."""
    rows = worst_labels(shown, best, table)
    labels = shown.labels_on(shown.decides)
    matrix = classes.counts(charts.of_entrant(predictions, best, shown.decides), labels)
    of_label = {pair.label: pair for pair in reversed(classes.worst_pairs(matrix, labels, matrix.size))}
    listed = [{**row, "confused": of_label.get(row["class"])} for row in rows.head(MOST_ROWS).iter_rows(named=True)]
    alt = f"Confusion matrix of {best.name} on {shown.decides}: {len(labels)} labels"
    drawn = [
        (label, label_charts.curves_of_label(label, ways, shown, predictions, f"label-{number}"))
        for number, label in enumerate(rows["class"].head(MOST_CURVES), start=1)
    ]
    return ByLabel(
        best,
        label_charts.confusion_map(matrix, labels, "confusion", alt),
        classes.worst_pairs(matrix, labels, MOST_PAIRS),
        listed,
        len(rows),
        drawn,
    )
