"""Results of version 1, which had no columns for labels and images: both are derived from its other columns."""

import json

import polars as pl

from toolkit.evaluation import columns
from toolkit.evaluation.scoring import with_p_best
from toolkit.results.studies import with_studies

COMPARISON = ["dataset", "held_out", "model", "pretrained", "seed", "train_per_label", "test_per_label"]
"""The columns that identified a comparison in version 1."""

SCORED = [*COMPARISON, "encoder", "recipe", "encoder_id", "head", "chosen_by"]


def brought_up_to_date(table: pl.DataFrame, predictions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Results and predictions with `labels`, `images` and `study`; newer ones unchanged.

    The labels are the classes of a row's table, in their order; the hash of a comparison's images is the `data_hash` of
    its rows on base and novel. `p_best` is recomputed where rows of different images were in one comparison.
    """
    if table.filter(pl.col("images") == "").is_empty():
        return table, predictions
    found = []
    for _, group in table.filter(pl.col("images") == "").group_by(SCORED, maintain_order=True):
        labels = group.filter(pl.col("class") != "all")["class"].unique(maintain_order=True).to_list()
        plain = columns.ordinary(group)
        images = (plain if len(plain) else group)["data_hash"].first()
        identity = {"labels_found": json.dumps(labels), "images_found": images}
        found.append(group.head(1).select(*SCORED, *(pl.lit(value).alias(name) for name, value in identity.items())))
    known = pl.concat(found).with_columns(pl.col("images_found").cast(pl.String).fill_null(""))
    table, predictions = with_studies(_filled(table, known), _filled(predictions, known))
    mixed = known.group_by(COMPARISON).agg(pl.col("images_found").n_unique()).filter(pl.col("images_found") > 1)
    return (with_p_best(table, predictions) if len(mixed) else table), predictions


def _filled(frame: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    joined = frame.join(known, on=SCORED, how="left", nulls_equal=True, maintain_order="left")
    lacks = (pl.col("images") == "") & pl.col("images_found").is_not_null()
    wanted = [pl.when(lacks).then(f"{name}_found").otherwise(name).alias(name) for name in ("labels", "images")]
    return joined.with_columns(wanted).select(frame.columns)
