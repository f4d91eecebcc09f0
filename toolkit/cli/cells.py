"""What cells and titles of the tables share."""

import math
from typing import Any

from toolkit.data.held_out import NONE, in_words
from toolkit.results.published import with_recipe

PLAIN: dict[str, Any] = {"box": None, "header_style": "bold", "title_justify": "left", "caption_justify": "left"}


def auc(value: float | None) -> str:
    """Three digits; nothing where images of one label alone have no AUC."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def held_out_in_words(about: dict[str, Any]) -> str:
    """`, cat held out`, for a title; nothing where nothing is."""
    return "" if about["held_out"] == NONE else f", {in_words(about['held_out'], about['split_by'])} held out"


def encoder_of(row: dict[str, Any]) -> str:
    """The encoder of a row, with its recipe."""
    return with_recipe(row["encoder"], row["recipe"])
