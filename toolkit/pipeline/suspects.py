"""Images whose label is perhaps wrong: select, score without them, write a table to correct and a page to look at."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.held_out import NONE
from toolkit.data.split import Split
from toolkit.encoders.record import INSIDE, EncoderRecord
from toolkit.errors import SelectionError, counted
from toolkit.evaluation import suspects
from toolkit.heads import fits
from toolkit.pipeline.compare import ready_encoders
from toolkit.pipeline.plan import Plan
from toolkit.results import tables
from toolkit.results.report import gallery
from toolkit.storage.records import write_whole

TABLE, PAGE = "suspects.csv", "suspects.html"
MOST_SHOWN = 60
RELIABLE, UNRELIABLE = 0.7, "The probe is often wrong itself: do not correct labels by it."
"""The left-out accuracy below which this is said."""
WHAT = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class Found:
    """`images` has the columns of `suspects.COLUMNS`; `encoder` and `head` are what scored them."""

    images: pl.DataFrame
    encoder: EncoderRecord
    head: str
    table: Path
    page: Path


def find_suspects(plan: Plan, head: str = "lda", left_out: str = "folds") -> Found:
    """Rank the plan's training and test images by how much a probe contradicts their labels; works from the cache.

    Takes the blocks of the image tower where they are embedded, else the patches, else its last layer; never a
    fine-tuned encoder, which was trained on the labels in question. Raises MissingEmbeddings where images are not
    embedded.
    """
    splits = plan.largest(plan.contents())
    if len(splits) > 1:
        raise SelectionError("data suspects looks at one comparison: name one value (--split), or none, and one seed.")
    (split,) = splits
    cache = _encoder(plan, split, head)
    found = suspects.find(split, cache, head, left_out, partial(plan.progress, "Leaving out"))
    done = Found(found, cache.record, head, plan.results / TABLE, plan.results / PAGE)
    write_whole(done.table, tables.csv_bytes(found))
    gallery.write(done.page, "Perhaps wrong labels", _lead(plan, done), [_row(plan, found, of) for of in WHAT])
    return done


def _encoder(plan: Plan, split: Split, head: str) -> Cache:
    every, _ = ready_encoders(plan, plan.base(), split, [head])
    ours = [cache for cache in every if cache.record.trained_on is None and fits(head, cache.record)]
    return next((cache for sees in INSIDE for cache in ours if cache.record.sees == sees), every[0])


def _lead(plan: Plan, done: Found) -> list[str]:
    held_out = plan.held_out()[0]
    only = (
        [] if held_out == NONE else [f"No training image is of {held_out}, so the probe judges its test images worse."]
    )
    return [
        f"The images of {plan.dataset.name} whose label a probe contradicts most: {done.head} on the "
        f"{done.encoder.sees} of {done.encoder.model}. {_unseen(plan)}",
        *only,
        f"A high rank is a reason to look, not a proof. {TABLE} has every image: correct its column label.",
    ]


def _unseen(plan: Plan) -> str:
    none = "No probe was trained on the image that it judges"
    return f"{none}, but for test images with a copy in training (--keep-leaks)." if plan.keep_leaks else f"{none}."


def _row(plan: Plan, found: pl.DataFrame, of: str) -> gallery.Row:
    """The most suspicious images of one split."""
    mine = found.filter(pl.col("split") == of)
    shown = [
        gallery.drawn(plan.dataset.read, one["path"], one["sha256"], _lines(one))
        for one in mine.head(MOST_SHOWN).iter_rows(named=True)
    ]
    note = f"{calls(found, of)} The first {len(shown)} by rank."
    return gallery.Row(f"{WHAT[of].capitalize()} images", note, shown)


def calls(images: pl.DataFrame, split: str) -> str:
    """How many images of a split the probe calls otherwise, and how often it agrees with the labels."""
    mine = images.filter(pl.col("split") == split)
    if mine.is_empty():
        return "No image."
    otherwise, suspects = int((mine["suggested"] != mine["label"]).sum()), int(mine["suspect"].sum())
    called = f"{otherwise:,} of {counted(len(mine), 'image')} are called otherwise ({counted(suspects, 'suspect')})."
    agrees = 1 - otherwise / len(mine)
    warning = f" {UNRELIABLE}" if agrees < RELIABLE else ""
    return f"{called} The probe's left-out accuracy is {agrees:.3f}.{warning}"


def _lines(one: dict[str, Any]) -> list[str]:
    """`1 · REAL`, `→ FAKE?` where another label is likelier, P(label), and the category."""
    rather = [f"→ {one['suggested']}?"] if one["suggested"] != one["label"] else []
    category = [one["category"]] if one["category"] else []
    return [f"{one['rank']} · {one['label']}", *rather, f"P {one['p_label']:.3f}", *category]
