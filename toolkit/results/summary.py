"""The wide summary for readers: one line for each encoder and head."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from toolkit.evaluation import columns
from toolkit.evaluation.intervals import of_mean, sign_flip
from toolkit.evaluation.metrics import paired_difference
from toolkit.evaluation.paired import MARGIN
from toolkit.results.classes import MACRO, has_more_than_two, labels_of_row
from toolkit.results.published import STUDIED_ROW, study_figure

ROW = [*columns.COMPARISON, "study", "encoder", "recipe", "encoder_id", "head", "chosen_by"]
"""The columns that identify a line of the summary: all but test set and class."""

LEFT_OUT = [name for name in ROW if name not in ("held_out", "images")] + ["test"]
"""The columns that identify a line of the means over held-out values (`same_each_time`)."""

SHARED = ("accuracy", "accuracy_low", "accuracy_high", "roc_auc", columns.AT_THRESHOLD, "p_best", "p_best_corrected")
PER_CLASS = ("precision", "recall", "f1", "support")
STUDIED = ("precision", "recall")
ALPHA = 0.05


BEST, AS_GOOD, UNDECIDED = "best", "≈ best", "not told apart"


def standing(row: Mapping[str, Any]) -> str:
    """`BEST`, which several equal ones may be, or against the best row of its images: `AS_GOOD`, `UNDECIDED`, or empty
    (worse: p below 0.05).

    A row is as good if the lower end of the paired interval of its difference from the best is above minus its margin
    (`margin_of`), whatever p is. Rows of earlier versions, without that interval, are undecided at most.

    >>> best, other = {"accuracy": 0.91}, {"accuracy": 0.90, "p_best": 0.4}
    >>> [standing({**other, "difference_best_low": low}) for low in (-0.015, -0.05)], standing(best)
    (['≈ best', 'not told apart'], 'best')
    """
    if row.get("accuracy") is None:
        return ""
    p, low = p_against_best(row), row.get("difference_best_low")
    if p is None or row.get("difference_best") == 0:
        return BEST
    if low is not None and low > -margin_of(row):
        return AS_GOOD
    return "" if p < ALPHA else UNDECIDED


def margin_of(row: Mapping[str, Any]) -> float:
    """By how much accuracy may be lower and still count as good."""
    margin: float | None = row.get("margin")
    return MARGIN if margin is None else margin


def p_against_best(row: Mapping[str, Any]) -> float | None:
    """The corrected p-value of a row of the results; the plain one for rows of earlier versions, which lack it."""
    corrected: float | None = row.get("p_best_corrected")
    return row.get("p_best") if corrected is None else corrected


def labels_of(table: pl.DataFrame) -> list[str]:
    """The labels of a table, in their order."""
    return table.filter(pl.col("class") != "all")["class"].unique(maintain_order=True).to_list()


def two_labels_of(table: pl.DataFrame) -> list[str]:
    """The labels of the rows with two labels, in their order."""
    return labels_of(table.filter(~has_more_than_two(table)))


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """The table made wide: a row for each encoder and head, with `base_…` and `novel_…` columns. Rows on perturbed
    images or other data are left out.

    `table` has the columns of `columns.RESULTS`. For each test set there are accuracy with its interval, `p_best` and
    `standing` (see there); `drop` is base minus novel accuracy. With two labels there are precision, recall, f1 and
    support of each; with more, the figures of `classes.MACRO`, and `harmonic_mean`. The study's own figures are
    `study_base`, `study_novel` (accuracies) and `study_base_precision_FAKE` and so on, null if they do not apply.
    """
    labels = two_labels_of(table)
    rows = []
    for key, group in columns.ordinary(table).group_by(ROW, maintain_order=True):
        row: dict[str, Any] = dict(zip(ROW, key, strict=True))
        for test in ("base", "novel"):
            row |= _of_test(group.filter(pl.col("test") == test), test, labels)
            row |= _of_study(row, test, labels)
        row["harmonic_mean"] = group["harmonic_mean"].max()
        both = row["base_accuracy"] is not None and row["novel_accuracy"] is not None
        row["drop"] = row["base_accuracy"] - row["novel_accuracy"] if both else None
        rows.append(row)
    return pl.DataFrame(rows, schema=_summary_schema(labels))


def _summary_schema(labels: list[str]) -> dict[str, columns.Kind]:
    """Names and types of the summary's columns, also for a table without rows or without a novel test."""
    schema = {name: columns.RESULTS[name][0] for name in ROW}
    for test in ("base", "novel"):
        schema |= {f"{test}_{name}": pl.Float64 for name in SHARED}
        schema[f"{test}_standing"] = pl.String
        schema |= {f"{test}_{name}": pl.Float64 for name in MACRO}
        schema |= {f"{test}_{name}_{label}": columns.RESULTS[name][0] for label in labels for name in PER_CLASS}
        schema[f"study_{test}"] = pl.Float64
        schema |= {f"study_{test}_{name}_{label}": pl.Float64 for label in labels for name in STUDIED}
    return schema | {"harmonic_mean": pl.Float64, "drop": pl.Float64}


def _of_study(row: dict[str, Any], test: str, labels: list[str]) -> dict[str, float | None]:
    named = {f"{name}_{label}" for label in labels for name in STUDIED}
    figures = {f"study_{test}_{figure}": study_figure(row, test, figure) for figure in sorted(named)}
    return {f"study_{test}": study_figure(row, test, "accuracy"), **figures}


def _of_test(group: pl.DataFrame, test: str, labels: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first = group.row(0, named=True) if len(group) else {}
    for name in SHARED:
        found[f"{test}_{name}"] = first.get(name)
    found[f"{test}_standing"] = standing(first)
    if len(labels_of_row(first.get("labels", ""))) > 2:
        every = group.row(by_predicate=pl.col("class") == "all", named=True)
        found |= {f"{test}_{name}": every[name] for name in MACRO}
    for label in labels:
        of_label = group.filter(pl.col("class") == label)
        values = of_label.row(0, named=True) if len(of_label) else {}
        found |= {f"{test}_{name}_{label}": values.get(name) for name in PER_CLASS}
    return found


def in_plural(column: str) -> str:
    """The plural of a column's name: `categories`, `generators`."""
    return "categories" if column == "category" else f"{column}s"


def same_each_time(table: pl.DataFrame) -> pl.DataFrame:
    """The table without the identities of fine-tuned encoders, of which each repetition trains its own."""
    return table.with_columns(encoder_id=pl.when(pl.col("recipe") == "").then("encoder_id").otherwise(pl.lit("")))


def newest(table: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Of rows that are equal in `by`, as of an encoder that was fine-tuned several times, only the last; in the order
    of the table."""
    numbered = table.with_row_index("row").sort("created", "row").unique(by, keep="last", maintain_order=True)
    return numbered.sort("row").drop("row")


def _latest(table: pl.DataFrame) -> pl.DataFrame:
    """The `all` rows on the data's own images, of each held-out value those of the newest encoder; `own_id` is its
    identity."""
    every = columns.ordinary(table).filter(pl.col("class") == "all").with_columns(own_id="encoder_id")
    return newest(same_each_time(every), [*LEFT_OUT, "held_out"])


def left_out_means(table: pl.DataFrame) -> pl.DataFrame:
    """Mean and worst accuracy over the held-out values, for each encoder and head with several of them.

    `mean_low`, `mean_high` are the ends of the mean's t interval over the values (`intervals.of_mean`), within 0 and 1;
    on novel images only, since the values share most of their base images.
    """
    means = (
        _latest(table)
        .group_by(LEFT_OUT, maintain_order=True)
        .agg(
            categories=pl.col("held_out").n_unique(),
            mean=pl.col("accuracy").mean(),
            each=pl.col("accuracy"),
            auc=pl.col("roc_auc").mean(),
            worst=pl.col("accuracy").min(),
            worst_category=pl.col("held_out").sort_by("accuracy").first(),
        )
        .filter(pl.col("categories") > 1)
    )
    ends = pl.DataFrame(
        [of_mean(np.array(each)) for each in means["each"]], schema=["mean_low", "mean_high"], orient="row"
    ).cast(pl.Float64)
    means = means.drop("each").hstack(ends.select(pl.all().clip(0, 1)))
    return means.with_columns(pl.when(pl.col("test") == "novel").then(pl.col("mean_low", "mean_high")))


OVER_SEEDS = ("seeds", "mean", "deviation", "lowest", "highest", "auc")


def over_seeds(table: pl.DataFrame) -> pl.DataFrame:
    """Mean and spread of the accuracy over draws of the training images, for each encoder, head and test set with
    several seeds. Seed 0, which takes the first N images, is no draw and is left out.

    The columns are those of `ROW` except `seed` and `images`, those of `columns.TEST`, and `OVER_SEEDS`;
    `deviation` is the sample standard deviation, `auc` the mean AUC. If several values were held out, rows with
    `held_out` = `mean of N` give the same for the mean over those values.
    """
    table = columns.unadapted(table).filter(pl.col("seed") > 0)
    by = [name for name in ROW if name not in ("seed", "images")] + columns.TEST
    each = newest(same_each_time(table.filter(pl.col("class") == "all")), [*by, "seed"])
    each = each.with_columns(figure=pl.col("accuracy"), auc=pl.col("roc_auc"))
    means = left_out_means(table).with_columns(
        held_out=pl.concat_str(pl.lit("mean of "), pl.col("categories")),
        figure=pl.col("mean"),
        perturbation=pl.lit(""),
        test_data=pl.lit(""),
    )
    figure = pl.col("figure")
    return (
        pl.concat([frame.select(*by, "seed", "figure", "auc") for frame in (each, means)])
        .group_by(by, maintain_order=True)
        .agg(
            seeds=pl.col("seed").n_unique(),
            mean=figure.mean(),
            deviation=figure.std(),
            lowest=figure.min(),
            highest=figure.max(),
            auc=pl.col("auc").mean(),
        )
        .filter(pl.col("seeds") > 1)
    )


AGAINST = (
    *("difference", "difference_low", "difference_high"),
    *("categories_low", "categories_high", "p_categories", "wins", "losses"),
)


def against_study(table: pl.DataFrame, predictions: pl.DataFrame) -> pl.DataFrame:
    """The accuracy of each encoder and head minus that of the study's method, on the same images, over the held-out
    values.

    `table` and `predictions` have the columns of `columns.RESULTS` and `columns.PREDICTIONS`. There is one row for each
    row of `left_out_means` for which the study's method was scored on the same held-out values. `difference` is that of
    the mean accuracies.
    `difference_low`, `difference_high` are its 95 % interval for these values: images are resampled within category and
    label (`metrics.paired_difference`). `categories_low`, `categories_high` are its 95 % interval for new values: the
    unit is the held-out value (`intervals.of_mean`). `p_categories` is the p-value of the sign-flip test over values,
    `wins` and `losses` count values. These five are of novel images only, since the values share most of their base
    images. Neither interval covers the sampling of training images or seeds.
    """
    several = [*columns.QUESTION, "study", "seed", "test"]
    names = [*LEFT_OUT, *AGAINST]
    is_study = pl.all_horizontal(pl.col(name).is_in(values) for name, values in STUDIED_ROW.items())
    scored = _latest(table).with_columns(encoder_id="own_id")
    right = columns.ordinary(predictions).join(scored, on=columns.KEY, how="semi", nulls_equal=True)
    right = same_each_time(right).with_columns(right=(pl.col("label") == pl.col("predicted")).cast(pl.Int8))
    studied = right.filter(is_study).select(*several, "held_out", "path", studied="right")
    rows = []
    for key, group in right.filter(~is_study).group_by(LEFT_OUT, maintain_order=True):
        paired = group.join(studied, on=[*several, "held_out", "path"], nulls_equal=True)
        if paired["held_out"].n_unique() > 1 and len(paired) == len(group):
            by_category = _by_category(paired) if group["test"][0] == "novel" else [None] * 5
            rows.append((*key, *_difference(paired), *by_category))
    kinds = {name: predictions.schema.get(name, pl.Float64()) for name in names}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _by_category(paired: pl.DataFrame) -> tuple[float, float, float, float, float]:
    """Interval, p-value, wins and losses, from one difference for each held-out category."""
    gains = paired.group_by("held_out", maintain_order=True).agg(gain=(pl.col("right") - pl.col("studied")).mean())
    each = gains["gain"].to_numpy()
    return *of_mean(each), sign_flip(each), float((each > 0).sum()), float((each < 0).sum())


def _difference(paired: pl.DataFrame) -> tuple[float, float, float]:
    """The difference of the means over held-out categories and its interval, from one row per image and category with
    `right` and `studied`."""
    share = (pl.col("right") - pl.col("studied")) / (pl.len().over("held_out") * pl.col("held_out").n_unique())
    images = paired.with_columns(share=share).group_by("path", "category", "label", maintain_order=True)
    each = images.agg(pl.col("share").sum())
    strata = each.select(pl.concat_str("category", "label", separator="/", ignore_nulls=True)).to_series()
    return paired_difference(each["share"].to_numpy(), np.asarray(strata), seed=0)
