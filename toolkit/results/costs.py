"""What rows cost, for readers: the workbook's sheet, the line in the terminal, and means over repetitions."""

from dataclasses import dataclass

import polars as pl

from toolkit.evaluation import columns
from toolkit.results.published import with_recipe
from toolkit.results.sheets import WHICH, named
from toolkit.results.summary import ROW

UNTIL_ANSWER = pl.sum_horizontal(*columns.PREPARING, ignore_nulls=False)
"""Seconds until a row can answer; null if a part of them was not measured."""

HEADINGS = {**named(*WHICH), "base_accuracy": "Base accuracy", "novel_accuracy": "Novel accuracy"}
HEADINGS |= {"until_answer_seconds": "Seconds until it can answer", "embedding_seconds": "of these embedding"}
HEADINGS |= {"training_seconds": "fine-tuning", "fitting_seconds": "choosing and fitting the head"}
HEADINGS |= {"answer_ms": "ms an image to answer", "parameters_trained": "Parameters trained"}
HEADINGS |= {"images_labelled": "Images labelled", "bytes_an_image": "Bytes an image"}
HEADINGS |= {"bytes_embedded": "Bytes of all vectors", "bytes_checkpoint": "Bytes of the checkpoint"}
HEADINGS |= {"measured_on": "Measured on", **named("train_per_label", "seed", "study")}

ABOUT = (
    "Wall seconds, measured when the work was done; rows of one encoder share its embedding and fine-tuning. "
    "Empty: not measured, as by earlier versions."
)


@dataclass(frozen=True)
class Cost:
    """Means over a row's repetitions, as in `columns.RESULTS`; `until_answer` sums the three seconds before it.

    A figure is None if it was not measured."""

    embedding: float | None
    training: float | None
    fitting: float | None
    until_answer: float | None
    answer_ms: float | None
    parameters: float | None
    labelled: float | None


def cost_of(rows: pl.DataFrame) -> Cost:
    """The means over these rows of the results."""
    figures = [*columns.PREPARING, UNTIL_ANSWER.alias("all"), "answer_ms", "parameters_trained", "images_labelled"]
    means = rows.select(figures).mean().row(0)
    return Cost(*means)


def cost_table(table: pl.DataFrame) -> pl.DataFrame:
    """A line for each encoder and head with the columns of `HEADINGS`; none for rows of which nothing was measured."""
    every = columns.ordinary(table).filter(pl.col("class") == "all").with_columns(until_answer_seconds=UNTIL_ANSWER)
    of_test = {f"{test}_accuracy": pl.col("accuracy").filter(pl.col("test") == test) for test in ("base", "novel")}
    lines = every.group_by(ROW, maintain_order=True).agg(
        *(pl.col(name).last() for name in HEADINGS if name not in (*ROW, *of_test)),
        **{name: accuracy.first() for name, accuracy in of_test.items()},
    )
    return lines.filter(pl.col("fitting_seconds").is_not_null()).select(list(HEADINGS))


def in_words(table: pl.DataFrame) -> str:
    """`Ready in (…): base zero-shot 6.0 ms, logreg 6.1 s, then 6.2 ms an image; …`; empty if nothing was measured."""
    known, parts = cost_table(table).filter(pl.col("until_answer_seconds").is_not_null()), []
    for (encoder, recipe), rows in known.group_by("encoder", "recipe", maintain_order=True):
        heads = [f"{head} {duration(s)}" for head, s in rows.select("head", "until_answer_seconds").iter_rows()]
        answer = rows["answer_ms"].mean()
        then = f", then {duration(answer / 1000)} an image" if isinstance(answer, float) else ""
        parts.append(f"{with_recipe(encoder, recipe)} {', '.join(heads)}{then}")
    return f"Ready in (embedding, training, head): {'; '.join(parts)}." if parts else ""


def duration(seconds: float) -> str:
    """Two digits or three: `0.05 ms`, `6 ms`, `6.0 s`, `105 s`, `12 min`, `3.2 h`."""
    for most, unit, name in ((0.0995, 1e-3, "ms"), (119.5, 1, "s"), (7170, 60, "min")):
        if seconds < most:
            return f"{_digits(seconds / unit)} {name}"
    return f"{_digits(seconds / 3600)} h"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"
