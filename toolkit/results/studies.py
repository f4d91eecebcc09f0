"""Find the comparisons that repeat one question on the same data; only these are shown and averaged together."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from toolkit.data.held_out import LABEL, NONE
from toolkit.evaluation import columns


@dataclass
class _Study:
    """The comparisons of one study so far: SHA-256 by path, and the hash of the images of each repetition."""

    name: str
    contents: pl.DataFrame
    images: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def takes(self, repetition: tuple[Any, ...], images: str, contents: pl.DataFrame) -> bool:
        """Whether a comparison is about the same data: it shares test images, and equal paths have equal content.

        Comparisons of the same data share test images, since these are the first of each label. If predictions were
        lost, the data is assumed to be the same.
        """
        if self.images.get(repetition, images) != images:
            return False
        if self.contents.is_empty() or contents.is_empty():
            return True
        shared = self.contents.join(contents, on="path", suffix="_other")
        return len(shared) > 0 and bool((shared["sha256"] == shared["sha256_other"]).all())

    def add(self, repetition: tuple[Any, ...], images: str, contents: pl.DataFrame) -> None:
        self.images[repetition] = images
        self.contents = pl.concat([self.contents, contents]).unique("path", keep="first", maintain_order=True)


def with_studies(table: pl.DataFrame, predictions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Results and predictions with their column `study` filled.

    Comparisons of the same question (`columns.QUESTION`) form a study if they share test images and these have the same
    content. A study has one set of images for each held-out value and seed; a comparison of other images starts a new
    study. Comparisons that hold nothing out form studies of their own, and so do those that hold out other labels.
    """
    every = table.group_by(columns.COMPARISON, maintain_order=True).agg(pl.col("created").min())
    tested = columns.ordinary(predictions).select(*columns.COMPARISON, "path", "sha256").unique(maintain_order=True)
    studies: dict[tuple[Any, ...], list[_Study]] = {}
    names = []
    for row in every.sort("created", maintain_order=True).iter_rows(named=True):
        alone = row["held_out"] if row["split_by"] == LABEL else row["held_out"] == NONE
        question = (*(row[name] for name in columns.QUESTION), alone)
        repetition, images = (row["held_out"], row["seed"]), row["images"]
        wanted = pl.DataFrame([row]).select(pl.col(name).cast(table.schema[name]) for name in columns.COMPARISON)
        mine = tested.join(wanted, on=columns.COMPARISON, how="semi", nulls_equal=True).select("path", "sha256")
        rivals = studies.setdefault(question, [])
        study = next((one for one in reversed(rivals) if one.takes(repetition, images, mine)), None)
        if study is None:
            rivals.append(study := _Study(images or row["dataset"], mine.clear()))
        study.add(repetition, images, mine)
        names.append(wanted.with_columns(study_found=pl.lit(study.name)))
    if not names:
        return table, predictions
    found = pl.concat(names)
    return _filled(table, found), _filled(predictions, found)


def _filled(frame: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    joined = frame.join(found, on=columns.COMPARISON, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(study=pl.col("study_found").fill_null("")).select(frame.columns)
