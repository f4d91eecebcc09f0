"""The charts of the page. Each is drawn at the width of a telephone, so that its text is legible there, too."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from toolkit.results.entrants import WAYS, Entrant, Subject
from toolkit.results.learning import SIZE
from toolkit.results.learning import Curve as LearningCurve
from toolkit.results.report.pictures import Picture, colour, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.75  # inches, 72 points each
MARKERS = "os^vPX*<>hpd8H"
AXIS, LINE = 0.62, 0.185  # inches: what an axis label takes, and a line of a legend
BINS, FEWEST = 10, 5
MOST_POINTS = 200
MOST_LINES = 12

HOLLOW: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": colour("ink")}
TICKS, TICK_LABELS = (0, 0.5, 1), ("0", "½", "1")
FINE = 4.0  # inches: the width of a card

Curve = tuple[Entrant, list[float]]


def new(height: float, columns: int = 1, width: float = WIDTH) -> "tuple[Figure, Any]":
    """An empty figure, `width` by `height` inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure((width, height))
    return figure, figure.subplots(1, columns)


def markers(names: Sequence[str]) -> dict[str, str]:
    """A marker for each name, in their order; where there are more names than markers, the last ones share one."""
    unique = list(dict.fromkeys(names))
    return {name: MARKERS[min(number, len(MARKERS) - 1)] for number, name in enumerate(unique)}


def base_against_novel(entrants: Sequence[Entrant]) -> Picture | None:
    """A point with its intervals for every entrant with both scores; the published study's figures are hollow."""
    both = [entrant for entrant in entrants if len(entrant.scores) == 2]
    if not both:
        return None
    figure, axes = new(4.5)
    shapes, tips = markers([entrant.head for entrant in both]), {}
    low = min(score.low for entrant in both for score in entrant.scores.values())
    start = max(0.0, np.floor((low - 0.03) * 20) / 20)
    axes.plot([start, 1], [start, 1], color=colour("faint"), linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for number, entrant in enumerate(both):
        base, novel = entrant.scores["base"], entrant.scores["novel"]
        gid = f"tip-{number}"
        tips[gid] = f"{entrant.name}: base {base.mean:.1%}, novel {novel.mean:.1%}"
        _cross(axes, entrant, shapes[entrant.head], gid)
        if base.study is not None and novel.study is not None:
            axes.plot(base.study, novel.study, "D", **HOLLOW, markersize=7.5, zorder=4)
    axes.set(xlim=(start, 1.005), ylim=(start, 1.005), xlabel="accuracy on base", ylabel="accuracy on novel")
    axes.set_aspect("equal")
    percent(axes)
    bottom = legend(figure, both, shapes, any(entrant.scores["novel"].study is not None for entrant in both))
    figure.subplots_adjust(left=0.13, right=0.985, top=0.985, bottom=bottom)
    return picture(
        figure, "base-against-novel", "Accuracy on base against novel, a point for each encoder and head", tips
    )


def _cross(axes: "Axes", entrant: Entrant, marker: str, gid: str) -> None:
    base, novel, shade = entrant.scores["base"], entrant.scores["novel"], colour(entrant.way)
    axes.plot([base.low, base.high], [novel.mean] * 2, color=shade, linewidth=1.4, alpha=0.45, zorder=2)
    axes.plot([base.mean] * 2, [novel.low, novel.high], color=shade, linewidth=1.4, alpha=0.45, zorder=2)
    edge: dict[str, Any] = {"markeredgecolor": "#ffffff", "markeredgewidth": 0.7}
    axes.plot(base.mean, novel.mean, marker, color=shade, markersize=8.5, zorder=3, gid=gid, **edge)


def legend(figure: "Figure", entrants: Sequence[Entrant], shapes: Mapping[str, str], studied: bool) -> float:
    """A legend: colours are ways, shapes heads. Returns the share of the figure's height for it and the axis label."""
    from matplotlib.lines import Line2D

    names = {**WAYS, "reference": "Without CLIP"}
    ways = [way for way in names if way in {entrant.way for entrant in entrants}]
    plain: dict[str, Any] = {"linestyle": "none", "markersize": 7.5}
    handles = [Line2D([], [], marker="o", color=colour(way), label=names[way], **plain) for way in ways]
    handles += [Line2D([], [], marker=m, color=colour("muted"), label=h, **plain) for h, m in shapes.items()]
    if studied:
        handles.append(Line2D([], [], marker="D", label="the study", **{**plain, **HOLLOW, "markersize": 6.5}))
    figure.legend(handles=handles, loc="lower center", ncols=4, handletextpad=0.1, columnspacing=1.2, fontsize=9)
    return (AXIS + LINE * -(-len(handles) // 4)) / figure.get_figheight()


def percent(axes: "Axes", x: bool = True) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in (axes.xaxis, axes.yaxis) if x else (axes.yaxis,):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def roc_of_best(best: Sequence[Entrant], subject: Subject, predictions: pl.DataFrame) -> Picture | None:
    """Of two labels: the best entrant of each way in one chart, thick on the test set that decides, thin and dashed on
    base."""
    if not best:
        return None
    figure, axes = new(4.5)
    diagonal(axes, 1)
    draw_roc(axes, best, subject, predictions, subject.labels[1])
    first, second = (short(label) for label in subject.labels)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel=f"{first} images called {second}", ylabel=f"{second} images called {second}")
    percent(axes)
    figure.legend(loc="lower center", ncols=2, fontsize=9, columnspacing=1.2)
    figure.subplots_adjust(left=0.13, right=0.985, top=0.985, bottom=0.215)
    return picture(figure, "roc", "ROC curves of the best encoder and head of each way to use CLIP")


def draw_roc(
    axes: "Axes", best: Sequence[Entrant], subject: Subject, predictions: pl.DataFrame, label: str, thick: float = 2.0
) -> None:
    """The ROC curves of P(`label`) of each of `best`, on every test set."""
    for entrant in best:
        for test in subject.tests:
            asked = against_the_rest(of_entrant(predictions, entrant, test), subject, test, label)
            decides: dict[str, Any] = {"linewidth": thick, "label": short(entrant.name, 30)}
            line = decides if test == subject.decides else {"linewidth": 1, "linestyle": (0, (3, 2))}
            axes.plot(*roc_curve(*asked), color=colour(entrant.way), zorder=3, **line)


def roc_and_calibration(entrant: Entrant, subject: Subject, predictions: pl.DataFrame, number: int) -> Picture:
    """Of two labels: left the ROC curves, with those of the other entrants in grey; right the calibration of
    P(second label). Of one run."""
    positive = subject.labels[1]
    figure, (roc, calibration) = new(2.15, 2, FINE)
    grey: dict[str, Any] = {"color": colour("line"), "linewidth": 0.9, "zorder": 1}
    for others in _groups(predictions.filter((pl.col("entrant") != entrant.key) & (pl.col("test") == subject.decides))):
        roc.plot(*roc_curve(*against_the_rest(others, subject, subject.decides, positive)), **grey)
    for axes in (roc, calibration):
        unit_square(axes)
        diagonal(axes)
    for test in subject.tests:
        asked = against_the_rest(of_entrant(predictions, entrant, test), subject, test, positive)
        line = {"color": colour(entrant.way), "linestyle": "-" if test == "base" else (0, (2, 1.4))}
        roc.plot(*roc_curve(*asked), linewidth=1.6, zorder=3, **line)
        calibration.plot(*reliability(*asked), linewidth=1.4, marker="o", markersize=3.5, zorder=3, **line)
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    calibration.set(title="Calibration", xlabel="predicted P", ylabel="observed share")
    figure.subplots_adjust(left=0.11, right=0.985, top=0.91, bottom=0.17, wspace=0.34)
    alt = f"ROC curve and calibration of {entrant.name}"
    return picture(figure, f"head-{number}", alt)


def diagonal(axes: "Axes", linewidth: float = 0.9) -> None:
    """The dashed line from corner to corner: chance in a ROC curve, perfect calibration in a reliability diagram."""
    axes.plot([0, 1], [0, 1], color=colour("faint"), linewidth=linewidth, linestyle=(0, (4, 3)), zorder=1)


def unit_square(axes: "Axes") -> None:
    """Axes from 0 to 1 with three ticks."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=TICKS, yticks=TICKS)
    axes.set_xticklabels(TICK_LABELS)
    axes.set_yticklabels(TICK_LABELS)


def of_entrant(predictions: pl.DataFrame, entrant: Entrant, test: str) -> pl.DataFrame:
    """The predictions of one entrant on one test set."""
    return predictions.filter((pl.col("entrant") == entrant.key) & (pl.col("test") == test))


def against_the_rest(rows: pl.DataFrame, subject: Subject, test: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image of a test set has this label `[N]` bool, and its P(label) `[N]` float64."""
    there = subject.labels_on(test)
    p = rows["probabilities"].list.get(there.index(label)).to_numpy() if label in there else np.zeros(len(rows))
    return (rows["label"] == label).to_numpy(), p


def _groups(predictions: pl.DataFrame) -> list[pl.DataFrame]:
    return [group for _, group in predictions.group_by("entrant", maintain_order=True)]


def roc_curve(truth: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates `[M]`, M at most `MOST_POINTS`; empty where `truth` is the same everywhere.

    `truth` `[N]` bool says which images are positive, `p` `[N]` float64 their probability of that.
    """
    from sklearn.metrics import roc_curve as every_point

    if truth.all() or not truth.any():
        return np.array([]), np.array([])
    false, true, _ = every_point(truth, p)
    kept = np.unique(np.linspace(0, len(false) - 1, min(len(false), MOST_POINTS)).astype(int))
    return false[kept], true[kept]


def reliability(truth: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean P and share of positive images in `BINS` equal bins of P, of those that hold at least `FEWEST` images."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    full = [b for b in range(BINS) if (bins == b).sum() >= FEWEST]
    return np.array([p[bins == b].mean() for b in full]), np.array([truth[bins == b].mean() for b in full])


def short(text: str, most: int = 16) -> str:
    """A name for a legend: not too long, and not starting with `_`, which Matplotlib would leave out."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return f" {text}" if text.startswith("_") else text


def heat_map(subject: Subject) -> Picture | None:
    """Accuracy on each held-out value, a column for each entrant; None where fewer than two were held out."""
    if len(subject.held_out) < 2:
        return None
    novel = subject.table.filter((pl.col("class") == "all") & (pl.col("test") == "novel"))
    means = {
        (held_out, key): mean
        for held_out, key, mean in novel.group_by("held_out", "entrant").agg(pl.col("accuracy").mean()).iter_rows()
    }
    entrants = [entrant for entrant in subject.entrants if "novel" in entrant.scores]
    rows = [[means.get((one, e.key), np.nan) for e in entrants] for one in subject.held_out]
    values = np.array([*rows, [e.scores["novel"].mean for e in entrants]])
    figure, axes = new(1.75 + 0.29 * len(values), width=max(WIDTH, 1.2 + 0.62 * len(entrants)))
    axes.imshow(values, cmap="cividis", vmin=min(0.5, np.nanmin(values)), vmax=1.0, aspect="auto")
    threshold = (min(0.5, np.nanmin(values)) + 1) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "#111111" if value > threshold else "#fdfdfd"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=9.5)
    axes.axhline(len(rows) - 0.5, color="#ffffff", linewidth=3)
    axes.set_yticks(range(len(values)), [*(short(one) for one in subject.held_out), "mean"])
    names = [short(entrant.name.replace(" CLIP", ""), 28) for entrant in entrants]
    axes.set_xticks(range(len(entrants)), names, rotation=38, ha="right", rotation_mode="anchor")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    left, bottom = 1.05 / figure.get_figwidth(), 1.35 / figure.get_figheight()
    figure.subplots_adjust(left=left, right=0.99, top=0.98, bottom=bottom)
    return picture(figure, "leave-one-out", "Accuracy in percent on each held-out category, by encoder and head")


def robustness(kind: str, strengths: Sequence[str], curves: Sequence[Curve], test: str, low: float) -> Picture:
    """Accuracy against the strength of one perturbation. Each curve is an entrant with its accuracies: first without
    the perturbation, then at each strength (NaN where not run). `low` is where the accuracy axis begins.
    """
    entrants = [entrant for entrant, _ in curves]
    figure, axes = new(3.4)
    shapes = markers([entrant.head for entrant in entrants])
    for entrant, values in curves:
        line = {"color": colour(entrant.way), "marker": shapes[entrant.head], "markersize": 5.5, "linewidth": 1.5}
        axes.plot(range(len(values)), values, label=entrant.name, **line)
    axes.set_xticks(range(len(strengths) + 1), ["none", *[short(one) for one in strengths]])
    axes.set(xlabel=short(kind), ylabel=f"accuracy on {test}", ylim=(low, 1.01))
    percent(axes, x=False)
    bottom = legend(figure, entrants, shapes, studied=False)
    figure.subplots_adjust(left=0.145, right=0.96, top=0.97, bottom=bottom)
    name = re.sub(r"[^a-z0-9]+", "-", f"robustness-{kind}-{test}".lower()).strip("-")
    return picture(figure, name, f"Accuracy on {test} images against {kind}")


def learning_curves(curve: LearningCurve, test: str) -> Picture:
    """Mean accuracy by training images of each label, a line for each encoder and head; a shade of one deviation."""
    points = curve.points.filter(pl.col("test") == test)
    means = points.group_by("entrant", maintain_order=True).agg(pl.col("mean").mean())
    best = means.sort("mean", descending=True, maintain_order=True)["entrant"].head(MOST_LINES).to_list()
    figure, axes = new(3.9)
    lines = [rows for _, rows in points.group_by("entrant", maintain_order=True) if rows["entrant"][0] in best]
    firsts = [rows.row(0, named=True) for rows in lines]
    entrants = [Entrant(one["entrant"], one["shown"], one["head"], one["way"], {}) for one in firsts]
    shapes, styles = markers([one.head for one in entrants]), dashes([one.encoder for one in entrants])
    for entrant, rows in zip(entrants, lines, strict=True):
        size, mean, deviation = (rows[name].to_numpy() for name in (SIZE, "mean", "deviation"))
        shade, line = colour(entrant.way), {"linestyle": styles[entrant.encoder], "linewidth": 1.5, "markersize": 5.5}
        axes.plot(size, mean, color=shade, marker=shapes[entrant.head], label=entrant.name, **line)
        if np.isfinite(deviation.astype(float)).all():
            axes.fill_between(size, mean - deviation, mean + deviation, color=shade, alpha=0.07, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.sizes, [f"{size:,}" for size in curve.sizes])
    axes.minorticks_off()
    axes.set(xlabel="training images of each label", ylabel=f"accuracy on {test}")
    percent(axes, x=False)
    bottom = legend(figure, entrants, shapes, studied=False)
    figure.subplots_adjust(left=0.145, right=0.97, top=0.97, bottom=bottom)
    return picture(figure, f"learning-{test}", f"Learning curves: accuracy on {test} by training images of each label")


def dashes(names: Sequence[str]) -> dict[str, Any]:
    """A line style for each name, in their order; the last ones share theirs where there are too many."""
    styles: list[Any] = ["-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1, 1.5))]
    unique = list(dict.fromkeys(names))
    return {name: styles[min(number, len(styles) - 1)] for number, name in enumerate(unique)}
