"""Embed: read the data, load the model, embed prompts and images, list unreadable images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from toolkit.cache import embedding
from toolkit.cache.embedding import EmbedReport
from toolkit.cache.store import Cache, Together, find_encoders, remember_name
from toolkit.data.content_hashes import Contents
from toolkit.data.split import Split
from toolkit.encoders.blocks import Blocks, WithBlocks
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import LoadEncoder
from toolkit.errors import DataError, SelectionError, UnknownBlocks
from toolkit.pipeline.plan import Plan
from toolkit.results import tables
from toolkit.storage import distributed
from toolkit.storage.work import Work

MOST_SKIPPED = 0.01


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: numbers of images (by content) and prompts embedded now and of images that were in the cache,
    unreadable images, the number of test images dropped as leaks, notes for the user, the cache, and what was embedded
    of the inside of the image tower (`blocks`, `patches` or nothing)."""

    embedded: int
    cached: int
    prompts: int
    skipped: pl.DataFrame
    leaks: int
    notes: list[str]
    cache: Cache
    plan: Plan
    contents: Contents
    inside: str | None = None

    @property
    def took(self) -> Work | None:
        """What embedding took now, by the mean of all images in the cache; None if that was not measured."""
        measured = self.cache.measured() if self.embedded else None
        return Work(measured.seconds * self.embedded, measured.on[-1]) if measured and measured.seconds else None

    @cached_property
    def splits(self) -> list[Split]:
        """The plan's splits; no image is read again."""
        return self.plan.splits(self.contents)


def embed(plan: Plan, strict: bool = False, inside: str | None = None, if_known: bool = False) -> Embedded:
    """Embed every image and prompt of the plan that the cache lacks, with the base encoder.

    With `inside`, also the `blocks` or the `patches` of its image tower, in the same pass. Raises UnknownBlocks for a
    tower in which they are not known, unless they are wanted only `if_known`; DataError if more than 1 % of the images
    (with `strict`: any) cannot be read, after all others are stored.
    """
    distributed.start()
    contents, encoder = plan.contents(), functools.cache(plan.load)
    # Before a model is loaded, so that mistakes in data or split show at once and this memory is freed again.
    leaks, wanted = _read_what_is_needed(plan, contents)
    cache = plan.find_base() or Cache(plan.cache, remember_name(plan.cache, encoder().record))
    prompts, embedded = embedding.embed_prompts(plan.texts(), encoder, cache), 0
    try:
        together = filled_together(cache, encoder, inside)
    except UnknownBlocks:
        if not if_known:
            raise
        inside, together = None, (encoder, cache)
    while True:
        report = _embed_what_was_read(plan, contents, wanted, *together)
        embedded += report.embedded
        if report.skipped.is_empty():
            break
        _pass_over(plan, contents, report.skipped)
        leaks, wanted = _read_what_is_needed(plan, contents)  # others take the place of unreadable images
    cached = report.cached + report.embedded - embedded
    _list_skipped(plan, contents)
    _complain(plan, contents, strict)
    return Embedded(embedded, cached, prompts, contents.skipped(), leaks, cache.damaged, cache, plan, contents, inside)


def filled_together(
    cache: Cache, encoder: Callable[[], OpenClip], inside: str | None
) -> tuple[LoadEncoder, Cache | Together]:
    """The function that loads the encoder, and its cache; with `inside`, for both kinds of vectors in one pass."""
    if not inside:
        return encoder, cache
    root = cache.folder.parent
    known = find_encoders(root, lambda record: record.sees == inside and record.is_inside_of(cache.record))
    both = functools.cache(lambda: WithBlocks(Blocks(encoder(), inside)))
    record = known[-1] if known else both().blocks.record
    return both, Together(cache, Cache(root, record))


def _read_what_is_needed(plan: Plan, contents: Contents) -> tuple[int, np.ndarray]:
    """Read the images that the plan needs -> how many were dropped as leaks, and the numbers of the rows to embed. Only
    hashes are kept in memory."""
    try:
        return sum(split.leaks for split in plan.largest(contents)), contents.readable()
    except SelectionError as error:
        _list_skipped(plan, contents)
        raise _because_of_unreadable(error, plan, contents.skipped(), contents.looked_at()) from error


def _because_of_unreadable(
    error: SelectionError, plan: Plan, skipped: pl.DataFrame, looked_at: int
) -> SelectionError | DataError:
    """The error of too few images, with the unreadable ones named if there are any."""
    if skipped.is_empty():
        return error
    first = f"The first is {skipped['path'][0]}: {skipped['reason'][0]}. {plan.results / tables.SKIPPED} lists them."
    if len(skipped) < looked_at:
        return SelectionError(f"{error} {len(skipped):,} images could not be read. {first}")
    what = "are listed" if looked_at == len(plan.dataset.rows) else "were tried"
    return DataError(f"{looked_at:,} images {what} and none could be read. {first}")


def _embed_what_was_read(
    plan: Plan, contents: Contents, wanted: np.ndarray, encoder: LoadEncoder, cache: Cache | Together
) -> EmbedReport:
    """Embed the images slice by slice. Dropped leaks need no vectors: their bytes are in the training set."""
    done, reports = 0, []
    for rows in contents.slices(wanted):
        done += len(rows)

        def watch(now: int, missing: int, upto: int = done) -> None:
            plan.progress("Embedding", upto - missing + now, len(wanted))

        reports.append(embedding.embed_images(plan.dataset, rows, encoder, cache, watch))
    embedded, skipped = sum(report.embedded for report in reports), pl.concat([report.skipped for report in reports])
    return EmbedReport(embedded, len(wanted) - embedded - len(skipped), skipped)


def _pass_over(plan: Plan, contents: Contents, skipped: pl.DataFrame) -> None:
    contents.note(skipped)
    if skipped["sha256"].null_count():  # files vanish or change: do not search for replacements
        _list_skipped(plan, contents)
        _complain(plan, contents, strict=False)


def _list_skipped(plan: Plan, contents: Contents) -> None:
    if distributed.rank() == 0:
        passed_over = plan.dataset.passed_over
        tables.write_skipped(plan.results, pl.concat([contents.skipped(), passed_over]))


def _complain(plan: Plan, contents: Contents, strict: bool) -> None:
    skipped, looked_at = contents.skipped(), contents.looked_at()
    if len(skipped) and (strict or len(skipped) > MOST_SKIPPED * looked_at):
        raise DataError(
            f"{len(skipped)} of {looked_at} images could not be read (the first: {skipped['path'][0]}, "
            f"{skipped['reason'][0]}). What could be read is embedded; {plan.results / tables.SKIPPED} lists the rest."
        )
