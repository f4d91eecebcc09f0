"""The figures of a study of more than two labels: which labels are confused, and the curves of one of them."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from toolkit.results import classes
from toolkit.results.entrants import Entrant, Subject
from toolkit.results.report import charts
from toolkit.results.report.pictures import Picture, colour, picture

NUMBERED = 12
"""Up to so many labels the confusion matrix shows its counts, and names every label."""
TICKS = 12
"""Of more labels about so many are named."""

MISTAKE, HIT = (0.85, 0.30, 0.27), (0.06, 0.58, 0.45)
"""Red and green, as the page's, of a lightness that shows on white and on black."""
FAINTEST, STRONGEST = 0.2, 0.85
"""The opacity of a single image among very many, and of all images of a label."""


def confusion_map(matrix: np.ndarray, labels: Sequence[str], name: str, alt: str) -> Picture:
    """A confusion matrix `[labels, labels]` of counts as a heat map: true label down, predicted label across.

    The opacity of a cell is the square root of its share of the row's images, so that rare mistakes are visible, too.
    """
    count = len(labels)
    numbered = count <= NUMBERED
    figure, axes = charts.new(1.0 + 0.36 * count if numbered else 4.75)
    axes.imshow(_shades(matrix), interpolation="none", aspect="equal")
    if numbered:
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                axes.text(column, row, f"{value:,}", ha="center", va="center", fontsize=9)
    places = range(0, count, 1 if numbered else -(-count // TICKS))
    names = [charts.short(labels[place], 12) for place in places]
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set_yticks(places, names, fontsize=8.5)
    axes.set(xlabel="predicted label", ylabel="true label")
    axes.grid(False)
    left, bottom = 1.15 / figure.get_figwidth(), 1.05 / figure.get_figheight()
    figure.subplots_adjust(left=left, right=0.99, top=0.99, bottom=bottom)
    return picture(figure, name, alt)


def _shades(matrix: np.ndarray) -> np.ndarray:
    """`[labels, labels, 4]` float64: red where labels are confused, green on the diagonal; the more, the less
    transparent."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    hit = np.eye(len(matrix), dtype=bool)[..., None]
    opacity = np.where(share > 0, FAINTEST + (STRONGEST - FAINTEST) * np.sqrt(share), 0.0)
    return np.concatenate([np.where(hit, HIT, MISTAKE), opacity[..., None]], axis=2)


def curves_of_label(
    label: str, best: Sequence[Entrant], subject: Subject, predictions: pl.DataFrame, name: str
) -> Picture:
    """One label against all others: left the ROC curves of `best`, right the calibration of P(label), of one run.

    Thick on the test set that decides, thin and dashed on base.
    """
    figure, (roc, calibration) = charts.new(3.0, 2)
    charts.draw_roc(roc, best, subject, predictions, label, thick=1.7)
    for axes in (roc, calibration):
        charts.unit_square(axes)
        charts.diagonal(axes)
    for entrant in best:
        rows = charts.of_entrant(predictions, entrant, subject.decides)
        said, observed = charts.reliability(*charts.against_the_rest(rows, subject, subject.decides, label))
        calibration.plot(said, observed, color=colour(entrant.way), linewidth=1.4, marker="o", markersize=3.5, zorder=3)
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    calibration.set(title="Calibration", xlabel="predicted P", ylabel="observed share")
    figure.legend(loc="lower center", ncols=2, fontsize=9, columnspacing=1.2)
    figure.subplots_adjust(left=0.1, right=0.985, top=0.93, bottom=0.26, wspace=0.32)
    return picture(figure, name, f"ROC curves and calibration of the label {label}")


def recalls_and_calibration(entrant: Entrant, subject: Subject, predictions: pl.DataFrame, number: int) -> Picture:
    """Left the recall of each label from the worst to the best, with those of the other entrants in grey; right the
    calibration of P(predicted label). Of one run; novel is dashed."""
    figure, (recalls, calibration) = charts.new(2.15, 2, charts.FINE)
    for other in subject.entrants:
        if other.key != entrant.key and subject.decides in other.scores:
            recalls.plot(*_recalls(predictions, other, subject, subject.decides), color=colour("line"), linewidth=0.9)
    for axes in (recalls, calibration):
        charts.unit_square(axes)
    charts.diagonal(calibration)
    for test in entrant.scores:
        rows = charts.of_entrant(predictions, entrant, test)
        line = {"color": colour(entrant.way), "linestyle": "-" if test == "base" else (0, (2, 1.4)), "zorder": 3}
        recalls.plot(*_recalls(predictions, entrant, subject, test), linewidth=1.6, **line)
        right = (rows["label"] == rows["predicted"]).to_numpy()
        said, observed = charts.reliability(right, rows["p_predicted"].to_numpy())
        calibration.plot(said, observed, linewidth=1.4, marker="o", markersize=3.5, **line)
    recalls.set(title="Recall", xlabel="labels, worst first", ylabel="recall", xticks=[])
    calibration.set(title="Calibration", xlabel="P of the answer", ylabel="accuracy")
    figure.subplots_adjust(left=0.11, right=0.985, top=0.91, bottom=0.17, wspace=0.34)
    return picture(figure, f"head-{number}", f"Recall of each label and calibration of {entrant.name}")


def _recalls(predictions: pl.DataFrame, entrant: Entrant, subject: Subject, test: str) -> tuple[np.ndarray, np.ndarray]:
    """Places from 0 to 1, and the recalls of the labels that have test images, in ascending order."""
    matrix = classes.counts(charts.of_entrant(predictions, entrant, test), subject.labels)
    there = matrix.sum(axis=1) > 0
    recalls = np.sort(np.diagonal(matrix)[there] / matrix.sum(axis=1)[there])
    return np.linspace(0, 1, len(recalls)), recalls
