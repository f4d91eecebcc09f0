"""The results as tables for a terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.table import Table

from toolkit.cli.cells import PLAIN, auc, encoder_of, held_out_in_words
from toolkit.cli.comparison_table import comparison
from toolkit.evaluation import columns
from toolkit.results import learning
from toolkit.results.summary import (
    LEFT_OUT,
    against_study,
    in_plural,
    left_out_means,
    over_seeds,
)

if TYPE_CHECKING:
    from toolkit.pipeline.plan import Plan

MOST_SIDE_BY_SIDE = 5
"""The number of perturbations that fit on a line of 120 characters."""
LEGEND_ADAPTED = (
    "The threshold was moved until the assumed share of these test images is called so: without their labels, and "
    "no better than the assumption. No other row is set against these."
)
LEGEND_INTERVAL = "95 % intervals (Student's t) on novel have the held-out value as their unit."
LEGEND_MEANS = (
    "Against the study's way: mean accuracy minus that of zero-shot on finetuned (study), and how many held-out values "
    f"are better : worse. {LEGEND_INTERVAL} On base, whose images the held-out values share, images are the unit."
)


def tables(table: pl.DataFrame, predictions: pl.DataFrame) -> Iterator[Table]:
    """A table for each comparison, in the study's layout; and the means over held-out values, if there are several.

    Of several models each has its own tables, which name it, with its weights where another model has its name. With
    several numbers of training images these are shown for the largest number; the learning curves follow. Rows adapted
    to the test images have a table of their own.
    """
    every, table = table, columns.unadapted(table)
    predictions = columns.unadapted(predictions)
    models = table.select("model", "pretrained").unique(maintain_order=True)
    if len(models) > 1:
        for model, weights in models.iter_rows():
            name = f"{model} ({weights})" if models["model"].to_list().count(model) > 1 else model
            mine = (pl.col("model") == model) & (pl.col("pretrained") == weights)
            yield from tables(*(one.filter(mine).with_columns(model=pl.lit(name)) for one in (every, predictions)))
        return
    if table["train_per_label"].n_unique() > 1:
        largest = pl.col("train_per_label") == table["train_per_label"].max()
        yield from tables(every.filter(largest), predictions.filter(largest))
        yield from map(_learning, learning.find(table, predictions))
        return
    for _, group in columns.ordinary(table).group_by(columns.COMPARISON, maintain_order=True):
        yield comparison(group, table["seed"].n_unique() > 1)
    for _, group in table.group_by(columns.COMPARISON, maintain_order=True):
        kinds = sorted(set(group["perturbation"]) - {""}, key=_by_kind_and_amount)
        for start in range(0, len(kinds), MOST_SIDE_BY_SIDE):
            yield _perturbed(group, ["", *kinds[start : start + MOST_SIDE_BY_SIDE]])
        for _, elsewhere in group.filter(pl.col("test_data") != "").group_by("test_data", maintain_order=True):
            yield comparison(elsewhere)
    spread = over_seeds(table)
    if len(spread):
        yield _seeds(spread)
    means = left_out_means(table)
    if len(means):
        yield _means(means.join(against_study(table, predictions), on=LEFT_OUT, how="left", nulls_equal=True))
    for (assumed,), rows in every.filter(pl.col(columns.ADAPTED) != "").group_by(columns.ADAPTED, maintain_order=True):
        yield _adapted(str(assumed), rows, table)


def encoders(table: pl.DataFrame, predictions: pl.DataFrame) -> Table | None:
    """The best head of each encoder of several models, side by side, as on the page; None for one model."""
    from toolkit.results.entrants import subject
    from toolkit.results.report.encoders import side_by_side
    from toolkit.results.report.words import p_value

    if table.select("model", "pretrained").unique().height < 2:
        return None
    rows = side_by_side(table, predictions, shown := subject(table, predictions))
    made = Table(title="Encoders side by side: one head each, chosen without test images", **PLAIN)
    tests = [name for test in shown.tests for name in (test, "AUC")]
    for name in ("Encoder", "Head", *tests, f"Difference on {shown.decides}", "p, corrected"):
        made.add_column(name, no_wrap=name != "Encoder")
    for row in rows:
        scores = [row.entrant.scores.get(test) for test in shown.tests]
        figures = [
            figure
            for one in scores
            for figure in ((f"{one.mean:.3f} [{one.low:.2f}–{one.high:.2f}]", auc(one.auc)) if one else ("", ""))
        ]
        duel = row.duel
        against = f"{duel.difference:+.3f} [{duel.low:+.3f}, {duel.high:+.3f}]" if duel else "best"
        made.add_row(row.name, row.entrant.head, *figures, against, "" if row.p is None else p_value(row.p))
    return made if rows else None


def equalised(table: pl.DataFrame, plan: "Plan") -> Table | None:
    """What this command found on equalised pictures beside what is stored of the files as they are; None if the
    pictures are not equalised, or nothing is stored."""
    from toolkit.data.equalise import parse_steps
    from toolkit.results import footing, tables

    if plan.reading.equalise is None:
        return None
    plain = plan.dataset.name.removesuffix(parse_steps(plan.reading.equalise).suffix)
    found = footing.side_by_side(table, tables.read(plan.results)[0], plain)
    made = Table(title=f"{plain}: as the files are, and equalised ({plan.reading.equalise})", **PLAIN)
    several = ["Held out"] if found["held_out"].n_unique() > 1 else []
    for name in (*several, "Encoder", "Head", "Test", "As the files are", "Equalised", "AUC before", "AUC"):
        made.add_column(name, no_wrap=True)
    for row in found.iter_rows(named=True):
        figures = [
            f"{row[f'accuracy{which}']:.3f} [{row[f'accuracy_low{which}']:.2f}–{row[f'accuracy_high{which}']:.2f}]"
            for which in ("_plain", "")
        ]
        areas = [auc(row["roc_auc_plain"]), auc(row["roc_auc"])]
        made.add_row(*[row["held_out"] for _ in several], encoder_of(row), row["head"], row["test"], *figures, *areas)
    return made if len(found) else None


def _learning(curve: learning.Curve) -> Table:
    """A line for each encoder, head and test set, a column for each number of training images: mean accuracies."""
    seeds = curve.table["seed"].n_unique()
    means = f", means over {seeds} seeds" if seeds > 1 else ""
    title = f"Accuracy by training images a label: {curve.about['dataset']}, {curve.about['model']}{means}"
    shown = Table(title=title, **PLAIN)
    for name in ("Encoder", "Head", "Test", *(f"{size:,}" for size in curve.sizes)):
        shown.add_column(name, no_wrap=True, justify="left" if name in ("Encoder", "Head", "Test") else "right")
    for _, rows in curve.points.group_by("entrant", "test", maintain_order=True):
        first, found = rows.row(0, named=True), dict(rows.select("train_per_label", "mean").iter_rows())
        figures = [f"{found[size]:.3f}" if size in found else "" for size in curve.sizes]
        shown.add_row(encoder_of(first), first["head"], first["test"], *figures)
    return shown


def _perturbed(group: pl.DataFrame, kinds: list[str]) -> Table:
    """Accuracies: a line for each encoder, head and test set, a column for each of these perturbations."""
    rows = group.filter((pl.col("class") == "all") & (pl.col("test_data") == "") & pl.col("perturbation").is_in(kinds))
    about = rows.row(0, named=True)
    shown = Table(
        title=f"Accuracy under perturbation: {about['dataset']}{held_out_in_words(about)}, {about['model']}", **PLAIN
    )
    for name in ("Encoder", "Head", "Test", *(kind or "as it is" for kind in kinds)):
        shown.add_column(name, no_wrap=True)
    for _, same in rows.group_by(["encoder_id", "recipe", "head", "chosen_by", "test"], maintain_order=True):
        found = dict(same.select("perturbation", "accuracy").iter_rows())
        first = same.row(0, named=True)
        if len(found) > 1:
            figures = [f"{found[kind]:.3f}" if kind in found else "" for kind in kinds]
            shown.add_row(encoder_of(first), first["head"], first["test"], *figures)
    return shown


def _by_kind_and_amount(perturbation: str) -> tuple[str, float]:
    kind, _, amount = perturbation.partition(":")
    return kind, float(amount or 0)


def _seeds(spread: pl.DataFrame) -> Table:
    """Accuracies over seeds. If several values were held out, only the lines of their means."""
    of_means = spread.filter(pl.col("held_out").str.starts_with("mean of "))
    title = f"Accuracy over {max(spread['seeds'].to_list())} seeds: {spread['model'][0]}"
    shown = Table(title=title, **PLAIN)
    for name in ("Held out", "Encoder", "Head", "Test", "Mean", "Deviation", "Lowest", "Highest", "AUC"):
        shown.add_column(name, no_wrap=True)
    for row in (of_means if len(of_means) else spread).iter_rows(named=True):
        test = row["perturbation"] or row["test_data"]
        figures = [*(f"{row[name]:.3f}" for name in ("mean", "deviation", "lowest", "highest")), auc(row["auc"])]
        shown.add_row(row["held_out"], encoder_of(row), row["head"], f"{row['test']} {test}".strip(), *figures)
    return shown


def _means(means: pl.DataFrame) -> Table:
    about, against = means.row(0, named=True), means["difference"].count() > 0
    title = f"Over the held-out {in_plural(about['split_by'])}: {about['model']}"
    shown = Table(title=title, caption=LEGEND_MEANS if against else LEGEND_INTERVAL, **PLAIN)
    several = ["Seed"] if means["seed"].n_unique() > 1 else []
    compared = ["Against the study's way"] if against else []
    for name in (*several, "Encoder", "Head", "Test", "Mean accuracy", "AUC", "Worst", "on", *compared):
        shown.add_column(name, no_wrap=True)
    for row in means.iter_rows(named=True):
        worst = row["worst_category"] if row["test"] == "novel" else f"({row['worst_category']} held out)"
        interval = "" if row["mean_low"] is None else f" [{row['mean_low']:.2f}–{row['mean_high']:.2f}]"
        mean = f"{row['mean']:.3f}{interval}"
        figures = [mean, f"{row['auc']:.3f}", f"{row['worst']:.3f}", worst, *[_difference(row) for _ in compared]]
        shown.add_row(*[str(row["seed"]) for _ in several], encoder_of(row), row["head"], row["test"], *figures)
    return shown


def _adapted(assumed: str, rows: pl.DataFrame, table: pl.DataFrame) -> Table:
    """Accuracies of the rows adapted to the test images, beside those of the same heads as they are; means over the
    comparisons."""
    by = ["encoder", "recipe", "head", "chosen_by", *columns.TEST]
    of_all = pl.col("class") == "all"
    before, after = (
        one.filter(of_all).group_by(by, maintain_order=True).agg(pl.col("accuracy", "roc_auc").mean(), runs=pl.len())
        for one in (table, rows)
    )
    runs = max(after["runs"].to_list())
    title = f"Adapted to the test images, {assumed}: {rows['dataset'][0]}, {rows['model'][0]}"
    shown = Table(title=f"{title}, means of {runs}" if runs > 1 else title, caption=LEGEND_ADAPTED, **PLAIN)
    for name in ("Encoder", "Head", "Test", "As it is", "Adapted", "AUC"):
        shown.add_column(name, no_wrap=True)
    for row in after.join(before, on=by, suffix="_before", maintain_order="left").iter_rows(named=True):
        test = " ".join(filter(None, (row[name] for name in columns.TEST)))
        figures = [f"{row['accuracy_before']:.3f}", f"{row['accuracy']:.3f}", auc(row["roc_auc"])]
        shown.add_row(encoder_of(row), row["head"], test, *figures)
    return shown


def _difference(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    if row["wins"] is None:
        return f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
    interval = f"[{row['categories_low']:+.3f}, {row['categories_high']:+.3f}]"
    return f"{row['difference']:+.3f} {interval} {row['wins']:.0f}:{row['losses']:.0f}"
