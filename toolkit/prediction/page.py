"""The predicted pictures as a page of thumbnails, a row for each label: the least sure first."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.errors import counted
from toolkit.prediction.copies import UNSURE
from toolkit.prediction.predict import Predicted
from toolkit.results.report import gallery
from toolkit.results.report.thumbnails import Read

MOST_SHOWN, FEWEST_SHOWN = 600, 6
"""About so many pictures are on the page, and at least so many of each label."""
MOST_UNREADABLE = 30


def write(file: Path, done: Predicted, read: Read, lead: Sequence[str]) -> None:
    """Write the page. `read` returns the bytes of a path, `lead` are sentences for its top. Raises CacheError."""
    gallery.write(file, "What the pictures are called", lead, _rows(done, read))


def _rows(done: Predicted, read: Read) -> Iterator[gallery.Row]:
    sure = pl.col("probabilities").list.max()
    readable = done.images.filter(pl.col("reason").is_null()).with_columns(p=sure).sort("p", "path")
    groups = [*done.head.record.labels.names, None]
    each = max(FEWEST_SHOWN, MOST_SHOWN // len(groups))
    for label in groups:
        mine = readable.filter(pl.col("label").eq_missing(pl.lit(label, pl.String)))
        if len(mine):
            shown = [_picture(row, done, read) for row in mine.head(each).iter_rows(named=True)]
            few = f"; the {len(shown)} least sure ones" if len(shown) < len(mine) else ", the least sure first"
            yield gallery.Row(label or UNSURE, f"{counted(len(mine), 'picture')}{few}.", shown)
    if unreadable := done.images.drop_nulls("reason").select("path", "reason").to_dicts():
        shown = [gallery.Picture(one["path"], [Path(one["path"]).name], "", one["reason"]) for one in unreadable]
        yield gallery.Row("Not read", f"{counted(len(unreadable), 'file')}.", shown[:MOST_UNREADABLE])


def _picture(row: dict[str, Any], done: Predicted, read: Read) -> gallery.Picture:
    """P of the likeliest label; of an image left open its name too. A picture far from training says so."""
    named = f"{done.head.record.labels.names[row['probabilities'].index(row['p'])]} " if row["label"] is None else ""
    lines = [Path(row["path"]).name, f"{named}P {row['p']:.3f}", *(["far"] if row["far"] else [])]
    return gallery.drawn(read, row["path"], None, lines)
