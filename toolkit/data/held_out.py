"""Held-out values: from `--split` and `--split-by` to values of a column, or to labels; and the lines about them."""

from collections.abc import Sequence
from shlex import quote

import polars as pl

from toolkit.data.labels import some
from toolkit.data.manifest import SCHEMA, Dataset, alike
from toolkit.errors import SelectionError, did_you_mean

NONE, ALL = "none", "all"
CATEGORY = "category"
LABEL, HALF = "label", "half"
LEAST_FOR_HALF = 4
"""Half of the labels can be held out from so many on: two are told apart in either part."""
MOST_VALUES = 200
"""A column with more values than this cannot be split by."""
HELD_OUT = {"cifake": "cat", "sample": "cat"}
"""The default held-out value, by kind of data; other data has none."""


def columns_to_split_by(dataset: Dataset) -> dict[str, list[str]]:
    """The columns whose values can be held out, each with its values, sorted; `category` first.

    A column qualifies with at least two values, at most `MOST_VALUES`, and at most half as many as images.
    """
    found = {}
    for name in [CATEGORY, *(name for name in dataset.rows.columns if name not in SCHEMA)]:
        values = dataset.rows[name].drop_nulls().unique().cast(pl.String).sort().to_list()
        if 2 <= len(values) <= min(MOST_VALUES, len(dataset.rows) // 2):
            found[name] = values
    return found


def held_out_values(dataset: Dataset, split: Sequence[str], by: str = CATEGORY) -> list[str]:
    """The values of the column `by` that `--split` names, to be held out one at a time; `none` holds nothing out.

    Without `split`, the default of this kind of data (`HELD_OUT`), or `none`. With `by` = `label`, the named labels are
    held out together, or `half` of all labels. Raises SelectionError for an unknown column or value.
    """
    if by == LABEL:
        return [_held_out_labels(dataset, split)]
    columns = columns_to_split_by(dataset)
    wanted = _named(split, columns.get(by, []))
    if by != CATEGORY and by not in columns:
        raise SelectionError(_unknown_column(by, dataset.name, list(columns)))
    values = columns.get(by, [])
    if not wanted:
        usual = HELD_OUT.get(dataset.kind, NONE)
        wanted = [usual] if by == CATEGORY and usual in values else [NONE]
    if wanted == [NONE]:
        return [NONE]
    if wanted == [ALL] and values:
        return values
    for name in wanted:
        if name not in values:
            raise SelectionError(_unknown(name, dataset.name, by, columns))
    return wanted


def _named(split: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """The names in `--split`, without repetitions; one of those `known` may contain commas, and be in another case."""
    spelled = {alike(value): value for value in known}
    parts = [[part] if alike(part) in spelled else part.split(",") for part in split]
    names = dict.fromkeys(name.strip() for part in parts for name in part if name.strip())
    exact = {*known, NONE, HALF, ALL}
    return list(dict.fromkeys(name if name in exact else spelled.get(alike(name), name) for name in names))


def _held_out_labels(dataset: Dataset, split: Sequence[str]) -> str:
    """`half`, `none`, or the labels that `--split` names, joined by commas."""
    labels = dataset.labels()
    wanted = _named(split, labels)
    if wanted == [NONE]:
        return NONE
    if wanted == [HALF] and HALF not in labels:
        if len(labels) < LEAST_FOR_HALF:
            raise SelectionError(
                f"--split half takes {LEAST_FOR_HALF} labels or more, two to train on and two to hold out, and "
                f"{dataset.name} has {len(labels)}."
            )
        return HALF
    for name in wanted:
        if name not in labels:
            guess = did_you_mean(name, labels)
            raise SelectionError(f"{dataset.name} has no label {name!r}.{guess} --split takes half or {some(labels)}.")
    if odd := next((name for name in wanted if "," in name), None):
        raise SelectionError(
            f"The label {odd!r} cannot be held out by its name, since a comma divides names: rename it."
        )
    if len(wanted) < 2 or len(labels) - len(wanted) < 2:
        raise SelectionError(
            f"--split-by label takes two labels or more to hold out, and leaves two or more to train on: --split half, "
            f"or some of {some(labels)}."
        )
    return ",".join(wanted)


def new_labels(labels: Sequence[str], held_out: str, by: str) -> tuple[str, ...]:
    """The labels that are held out, sorted; empty if another column is split by.

    `half` holds out the second half of the sorted labels; with an odd number, the first half has one more (Zhou et al.
    2022, CoOp's and CoCoOp's base and new classes).
    """
    if by != LABEL or held_out == NONE:
        return ()
    return tuple(sorted(labels)[(len(labels) + 1) // 2 :] if held_out == HALF else sorted(held_out.split(",")))


def in_words(held_out: str, by: str) -> str:
    """What is held out, for a sentence: `half` of the labels is no name of a value."""
    return "half of the labels" if by == LABEL and held_out == HALF else held_out


def what_is_held_out(dataset: Dataset, held_out: Sequence[str], by: str = CATEGORY) -> str | None:
    """A line for the user: how values could be held out, if none are; which labels are held out; or which labels have
    no value in the column `by`. None if there is nothing to report."""
    if new := new_labels(dataset.labels(), held_out[0], by):
        known = len(dataset.labels()) - len(new)
        return f"{len(new)} of {known + len(new)} labels are held out: {some(new)}. Each part is tested among its own."
    if list(held_out) != [NONE]:
        return _line_on_labels_without(dataset, by)
    ways = [
        f"{'' if name == CATEGORY else f'--split-by {quote(name)} '}--split {quote(values[0])} (or all)"
        for name, values in columns_to_split_by(dataset).items()
    ]
    ways += [f"--split-by {LABEL} --split {HALF}"] if len(dataset.labels()) >= LEAST_FOR_HALF else []
    could = f"What could be: {'; '.join(ways)}." if ways else "The data has no categories or other columns to split by."
    return f"Nothing is held out, so the results say nothing about images of a new kind. {could}"


def _line_on_labels_without(dataset: Dataset, by: str) -> str | None:
    without = labels_without(dataset.rows, by)
    if not without:
        return None
    images, values = " and ".join(without), dataset.rows[by].n_unique() - 1
    return f"{images} images have no {by}: each is assigned to one of the {values} held-out values by its content."


def labels_without(rows: pl.DataFrame, by: str) -> list[str]:
    """The labels without any value in the column `by`, sorted."""
    named = rows.group_by("label").agg(pl.col(by).count().alias("values"))
    return named.filter(pl.col("values") == 0)["label"].sort().to_list()


def _unknown_column(by: str, data: str, columns: list[str]) -> str:
    guess = did_you_mean(by, columns)
    takes = f"--split-by takes {', '.join(columns)}" if columns else "It has no column to hold values of out"
    return f"{data} has no column {by!r} to split by.{guess} {takes}."


def _unknown(name: str, data: str, by: str, columns: dict[str, list[str]]) -> str:
    values = columns.get(by, [])
    if name == HALF and not values:
        return f"--split {HALF} holds out half of the labels: say --split-by {LABEL} --split {HALF}."
    if not values:
        other = f", or split by another column: --split-by {', '.join(columns)}" if columns else ""
        return f"{data} has no categories, so --split {name} holds nothing out: leave --split out{other}."
    takes = f"--split takes {', '.join(values)}, all, or none"
    if name in (ALL, NONE):
        return f"--split {name} stands alone: {takes}."
    column = next((one for one, its in columns.items() if name in its), None)
    elsewhere = f" It is a {column}: say --split-by {column}." if column else did_you_mean(name, values)
    return f"{data} has no {by} {name!r}.{elsewhere} {takes}."
