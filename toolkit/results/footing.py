"""Equalised pictures beside the files as they are: the same heads, two data sets (`data.equalise`)."""

import polars as pl

from toolkit.evaluation import columns

SAME = [name for name in columns.QUESTION if name != "dataset"]
SAME += ["held_out", "seed", "encoder", "recipe", "head", "chosen_by", "test"]
"""What a line on equalised pictures shares with the one on the files as they are."""
FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "roc_auc", "support")


def side_by_side(table: pl.DataFrame, stored: pl.DataFrame, plain: str) -> pl.DataFrame:
    """The lines of `table` (of equalised data) that `stored` has for the data `plain`, too: the columns `SAME`,
    `FIGURES`, and `FIGURES` of the files as they are with `_plain` behind. Of several such lines the newest counts."""
    mine, theirs = (columns.ordinary(one).filter(pl.col("class") == "all") for one in (table, stored))
    newest = theirs.filter(pl.col("dataset") == plain).sort("created", maintain_order=True)
    plainly = newest.unique(SAME, keep="last", maintain_order=True).select(*SAME, *FIGURES)
    joined = mine.join(plainly, on=SAME, how="inner", nulls_equal=True, suffix="_plain", maintain_order="left")
    return joined.select(*SAME, *FIGURES, *(f"{name}_plain" for name in FIGURES))
