"""The table of one comparison, in the study's layout."""

from typing import Any

import polars as pl
from rich.table import Table

from toolkit.cli.cells import PLAIN, auc, encoder_of, held_out_in_words
from toolkit.evaluation import columns
from toolkit.evaluation.left_out import BY_SEEN
from toolkit.results import costs
from toolkit.results.classes import HARMONIC_MEAN, MACRO, worst_first
from toolkit.results.notes import notes
from toolkit.results.published import study_figure
from toolkit.results.summary import (
    AS_GOOD,
    BEST,
    UNDECIDED,
    labels_of,
    margin_of,
    standing,
)

LEGEND = (
    "★ the most accurate; ≈ as good: behind by less than {margin:g}, by its paired 95 % interval; ? cannot be "
    "told apart from it (p ≥ 0.05, corrected for picking the best). [95 % interval]"
)
CHOSEN_ON_SEEN = (
    "C, k and so on of heads on fine-tuned encoders were chosen on images that those encoders trained on, not on "
    "left-out ones."
)
MARKS = {BEST: "★", AS_GOOD: "≈", UNDECIDED: "?"}
MOST_LABELS = 2
"""Up to this many labels have columns of their own; more labels are shown as averages."""
WORST = 3
"""The number of labels named under the averages: those with the lowest recall."""


def comparison(group: pl.DataFrame, seeds: bool = False) -> Table:
    """One comparison's table; with several `seeds` its title says which one."""
    about, labels = group.row(0, named=True), labels_of(group)
    title = f"{about['dataset']}{held_out_in_words(about)}: {about['model']}, trained on {about['train_rows']:,} images"
    title += f" (seed {about['seed']})" if seeds else ""
    title += f", scored on {about['test_data']}" if about["test_data"] else ""
    shown = Table(title=title, caption=_legend(group), **PLAIN)
    for name in ("Encoder", "Head", "Test", "Accuracy"):
        shown.add_column(name, no_wrap=name != "Encoder")
    made = _averages(shown, group) if len(labels) > MOST_LABELS else _of_each_label(shown, group, labels)
    cost = costs.in_words(group)
    made.caption = "\n".join(filter(None, [str(made.caption), cost]))
    return made


def _averages(shown: Table, group: pl.DataFrame) -> Table:
    """A line for each head and test set with the averages over the labels; below it the hardest labels."""
    headings = {name: text for name, text in MACRO.items() if group[name].count()}
    headings |= {"harmonic_mean": HARMONIC_MEAN} if group["harmonic_mean"].count() else {}
    for text in headings.values():
        shown.add_column(text, justify="right")
    for row in group.filter(pl.col("class") == "all").iter_rows(named=True):
        figures = ["" if row[name] is None else f"{row[name]:.3f}" for name in headings]
        shown.add_row(*_first_cells(row), *figures)
    shown.caption = "\n".join([_legend(group), *_hardest(group)])
    return shown


def _hardest(group: pl.DataFrame) -> list[str]:
    """A line for each test set: the labels that its most accurate head recognises worst."""
    lines = []
    for (test,), rows in group.group_by("test", maintain_order=True):
        best = rows.sort("accuracy", descending=True, maintain_order=True).head(1)
        mine = rows.join(best, on=columns.KEY, how="semi", nulls_equal=True, maintain_order="left")
        worst = [f"{label} {recall:.2f}" for label, recall in worst_first(mine).select("class", "recall").iter_rows()]
        name = f"{best['head'][0]} on {encoder_of(best.row(0, named=True))}"
        lines.append(f"Lowest recall on {test} ({name}): {', '.join(worst[:WORST])}.")
    return lines


def _of_each_label(shown: Table, group: pl.DataFrame, labels: list[str]) -> Table:
    """A line for each head and test set with the figures of two labels side by side."""
    shown.add_column("AUC", justify="right")
    for label in labels:
        for name in (f"{label} prec.", "recall", "F1", "images"):
            shown.add_column(name, justify="right")
    studied = [study_figure(row, row["test"], "accuracy") for row in group.iter_rows(named=True)]
    if any(figure is not None for figure in studied):
        shown.add_column("Study", justify="right")
    for _, rows in group.group_by([*columns.KEY], maintain_order=True):
        shown.add_row(*_line(rows, labels))
    return shown


def _legend(group: pl.DataFrame) -> str:
    """What the marks mean, and what to keep in mind with these rows."""
    said = LEGEND.format(margin=margin_of(group.row(0, named=True))) + _flattery(group)
    return "\n".join([said, *notes(group)])


def _flattery(group: pl.DataFrame) -> str:
    """What picking the best row is expected to add to its accuracy, for each test set that has more than one row; and
    whether heads chose their settings on images that the encoder was trained on."""
    best = group.filter((pl.col("class") == "all") & (pl.col("selection_bias") > 0))
    said = [f"{row['selection_bias']:.3f} on {row['test']}" for row in best.iter_rows(named=True)]
    flattery = f"\nPicking the best flatters it by about {', '.join(said)}." if said else ""
    seen = group["chosen_by"].str.ends_with(BY_SEEN).any()
    return flattery + (f"\n{CHOSEN_ON_SEEN}" if seen else "")


def _line(rows: pl.DataFrame, labels: list[str]) -> list[str]:
    first: dict[str, Any] = rows.row(0, named=True)
    cells = [*_first_cells(first), auc(first["roc_auc"])]
    for label in labels:
        row = rows.filter(pl.col("class") == label).row(0, named=True)
        cells += [f"{row['precision']:.2f}", f"{row['recall']:.2f}", f"{row['f1']:.2f}", f"{row['support']:,}"]
    figure = study_figure(first, first["test"], "accuracy")
    return [*cells, f"{figure:.2f}" if figure is not None else ""]


def _first_cells(row: dict[str, Any]) -> list[str]:
    mark = MARKS.get(standing(row), " ")
    interval = f"{row['accuracy']:.3f} [{row['accuracy_low']:.2f}–{row['accuracy_high']:.2f}] {mark}"
    return [encoder_of(row), row["head"], row["test"], interval.rstrip()]
