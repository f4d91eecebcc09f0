"""An inventory of a data set: counts, duplicates, leaks."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.data import near_copies, sources
from toolkit.data.held_out import NONE
from toolkit.data.images import decode
from toolkit.data.manifest import Dataset, Progress, by_reason, hash_rows
from toolkit.data.near_copies import NearCopies
from toolkit.data.split import select
from toolkit.errors import MissingEmbeddings, SelectionError
from toolkit.evaluation import audit


def at_hand(cache: Path) -> list[Dataset]:
    """The data sets in the standard places, and the built-in sample; `cache` as `open_data` takes it."""
    places: list[Path | str] = [place for place in sources.STANDARD_PLACES if place.exists()]
    return [sources.open_data(place, cache=cache) for place in [*places, "sample"]]


def describe(dataset: Dataset, on_progress: Progress | None = None, cache: Path | None = None) -> dict[str, Any]:
    """Decode every image and count: `counts` has a dict for each combination of split, label and category.

    `seen` is the sum of `used` and `skipped`: files that are not used or cannot be decoded, by reason. `layout` lists
    the meaning of folder levels or columns. `duplicates` counts images with the same bytes as an earlier image of the
    same split and label; `leaks` test images whose bytes are in train; `contradictions` images (by content) with
    several labels. With `cache`, a folder where they are stored, near copies of training images are counted, too
    (`near_copies.facts`).
    """
    look = NearCopies(dataset, cache) if cache else None
    rows = hash_rows(dataset, dataset.rows, on_progress, look.notice if look else decode)
    readable = rows.drop_nulls("sha256")
    unreadable = rows.filter(pl.col("sha256").is_null()).select("path", "reason")
    train = readable.filter(pl.col("split") == "train")
    test = readable.filter(pl.col("split") == "test")
    return {
        "name": dataset.name,
        "description": dataset.description,
        "images": len(rows),
        "seen": dataset.seen,
        "used": len(readable),
        "skipped": by_reason(pl.concat([unreadable, dataset.passed_over])),
        "layout": [asdict(level) for level in dataset.layout],
        "notes": list(dataset.notes),
        "labels": dataset.labels(),
        "categories": dataset.categories(),
        "unreadable": len(unreadable),
        "duplicates": len(readable) - len(readable.unique(["sha256", "split", "label"])),
        "leaks": int(test["sha256"].is_in(train["sha256"].unique().implode()).sum()),
        "contradictions": audit.clashes(readable),
        "counts": _counts(rows),
        **(near_copies.facts(look.among(train, test)) if look else {}),
    }


def careful(dataset: Dataset, cache: Path) -> str | None:
    """A line if files give the labels away without a look at the picture (`audit.summary` on the study's numbers of
    images). None if they do not, or if there are too few labels or images to tell."""
    if len(dataset.labels()) < 2:
        return None
    try:
        return audit.summary(dataset, select(dataset, NONE), cache)
    except (SelectionError, MissingEmbeddings):
        return None


def _counts(rows: pl.DataFrame) -> list[dict[str, Any]]:
    counted = rows.group_by("split", "label", "category").agg(images=pl.len())
    order = pl.col("split") != "train"
    return counted.sort(order, "label", "category", nulls_last=True).to_dicts()
