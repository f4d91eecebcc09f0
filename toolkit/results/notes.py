"""Sentences that stand under the tables, in the terminal, on the page and in the workbook."""

import json
from collections.abc import Sequence

import polars as pl

from toolkit.evaluation import columns
from toolkit.results.published import with_recipe


def notes(table: pl.DataFrame) -> list[str]:
    """What the images can tell, and which choices stand at the edge of their grid."""
    return [*filter(None, [power(table)]), *edges(table)]


def power(table: pl.DataFrame) -> str:
    """The smallest differences from the best row that the images tell; empty for rows that have none."""
    rows = columns.ordinary(table).filter((pl.col("class") == "all") & pl.col("difference_told").is_not_null())
    said: list[str] = []
    for (test,), mine in rows.group_by("test", maintain_order=True):
        least, images = mine["difference_told"].to_list(), mine["support"].to_list()
        tell = "" if said else " tell differences from the best row"
        said.append(f"{_span(images, ',')} {test} images{tell} of {_span(least, '.3f')} or more")
    return f"{'; '.join(said)} (McNemar's test, 80 % power)." if said else ""


def edges(table: pl.DataFrame) -> list[str]:
    """A sentence for each head that chose a setting at the edge of its grid, beyond which others might do better."""
    rows = columns.ordinary(table).select("head", "encoder", "recipe", "choice").unique(maintain_order=True)
    found: dict[str, dict[str, list[str]]] = {}
    for head, encoder, recipe, choice in rows.iter_rows():
        on = with_recipe(encoder, recipe or "")
        for what in json.loads(choice or "{}").get("at_edge", []):
            known = found.setdefault(head, {}).setdefault(on, [])
            known += [what] if what not in known else []
    where = {head: [f"{', '.join(what)} on {on}" for on, what in each.items()] for head, each in found.items()}
    why = "chose at the edge of its grid, so that a wider one may do better"
    return [f"{head} {why}: {'; '.join(said)}." for head, said in where.items()]


def _span(values: Sequence[float], how: str) -> str:
    """`0.056`, or `0.049 to 0.113`."""
    low, high = (format(value, how) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
