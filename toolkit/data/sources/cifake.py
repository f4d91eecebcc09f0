"""CIFAKE's file names (Bird & Lotfi 2023): the number of the CIFAR-10 image, and the category as a suffix."""

import re
from collections.abc import Collection

import polars as pl

from toolkit.data.images import SUFFIXES

CATEGORIES = {
    1: "airplane",
    2: "automobile",
    3: "bird",
    4: "cat",
    5: "deer",
    6: "dog",
    7: "frog",
    8: "horse",
    9: "ship",
    10: "truck",
}
"""CIFAKE's suffixes: `0001.jpg` is an airplane, `0001 (4).jpg` a cat. Verified for REAL, whose bytes equal
CIFAR-10's."""

NAME = rf"^(?i-u:([0-9]{{1,9}})(?: \(([0-9]{{1,2}})\))?(?:{'|'.join(map(re.escape, SUFFIXES))}))$"
MOST = 0.5
"""Data is CIFAKE if more than this share of its names fits."""
FEW_WITH_SUFFIX = 0.1
"""Data is not CIFAKE if fewer of its numbered files have a suffix: then these mark copies."""

ODD = "its name says no category, as CIFAKE's names do"


def parse_cifake_names(names: pl.Series) -> pl.DataFrame:
    """The columns number and suffix (Int64) of names such as `0012 (4).jpg`; no suffix counts as 1. Null for a name of
    another scheme.

    >>> parse_cifake_names(pl.Series(["0012 (4).jpg", "0012.PNG", "dog.jpg"])).rows()
    [(12, 4), (12, 1), (None, None)]
    """
    groups = names.str.extract_groups(NAME).struct
    parts = pl.DataFrame({"number": groups.field("1"), "said": groups.field("2")}).cast(pl.Int64)
    suffix = pl.col("said").fill_null(1)
    valid = suffix.is_in(list(CATEGORIES)) & (pl.col("said") != 1).fill_null(True) & pl.col("number").is_not_null()
    return parts.select(pl.when(valid).then("number").alias("number"), pl.when(valid).then(suffix).alias("suffix"))


def cifake_numbers(names: pl.Series, labels: Collection[str]) -> pl.DataFrame | None:
    """Number and suffix of each file name (`parse_cifake_names`); None if this is not CIFAKE.

    Numbered files are not enough: the labels must be CIFAKE's, most names must fit, and some must have a suffix.
    """
    if {label.lower() for label in labels} != {"real", "fake"}:
        return None
    numbers = parse_cifake_names(names)
    fitting, suffixed = numbers["number"].count(), int((numbers["suffix"] > 1).sum())
    if fitting <= MOST * len(names) or not suffixed or suffixed < FEW_WITH_SUFFIX * fitting:
        return None
    return numbers
