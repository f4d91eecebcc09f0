"""The grid: encoders x heads x test sets -> predictions -> the table. It needs only the cache, no model."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.labels import Labels
from toolkit.data.split import Split, TestSet
from toolkit.encoders.record import EncoderRecord
from toolkit.errors import SelectionError
from toolkit.evaluation import columns, kept_fits, left_out, provenance
from toolkit.evaluation.cost import EncoderCost, HeadCost, seconds_to_answer
from toolkit.evaluation.paired import MARGIN
from toolkit.evaluation.scoring import score, with_harmonic_mean, with_p_best
from toolkit.heads import Head, fits, make_head
from toolkit.heads.neighbours import remembering
from toolkit.storage.work import Work, machine
from toolkit.version import code_version


class Fitted(dict[tuple[str, str], Head]):
    """(encoder's identity, head's name) -> fitted head; `took` has what each cost."""

    def __init__(self) -> None:
        super().__init__()
        self.took: dict[tuple[str, str], HeadCost] = {}


@dataclass(frozen=True)
class Settings:
    """The settings of a comparison, besides its rows and encoders. `prompts` maps each label to its prompts, `margin`
    is the loss of accuracy that still counts as good (it changes words alone)."""

    dataset: str
    labels: Labels
    prompts: Mapping[str, Sequence[str]]
    heads: Sequence[str] = ("zero-shot", "logreg", "knn")
    choose_by: str = "category"
    seed: int = 0
    train_per_label: int | None = 450
    test_per_label: int | None = 100
    keep_leaks: bool = False
    margin: float = MARGIN


@dataclass(frozen=True)
class Comparison:
    """`table` has the columns of `columns.RESULTS`, `predictions` those of `columns.PREDICTIONS`."""

    table: pl.DataFrame
    predictions: pl.DataFrame
    heads: Fitted

    def notes(self) -> list[str]:
        """Lines from the heads for the user, for example that a large training set was fitted in parts."""
        return [line for head in self.heads.values() for line in getattr(head, "notes_", [])]


def require_unseen(record: EncoderRecord, split: Split) -> None:
    """Raise SelectionError unless the encoder's record proves that it was never trained on the held-out value.

    An encoder that we did not fine-tune passes. A fine-tuned one must have been trained on exactly the split's training
    rows, which contain no image of that value.
    """
    trained = record.trained_on
    if trained is None:
        return
    same = trained.train_sha256 == split.train_sha256() and trained.held_out == split.held_out
    if not same or split.held_out_groups & set(trained.train_categories):
        raise SelectionError(
            f"The record of the fine-tuned encoder {record.identity} does not show that it was trained on this "
            f"comparison's images ({split.held_out!r} held out): run python cli.py finetune --split {split.held_out}."
        )


def fit(split: Split, encoders: Sequence[Cache], settings: Settings, kept: Path | None = None) -> Fitted:
    """Fit every head of the settings on the training rows, for each encoder whose vectors it can be fitted on.

    `kept` is a folder of fits: those that were made before are read from it."""
    fitted = Fitted()
    for cache in encoders:
        record = cache.record
        names = [name for name in settings.heads if fits(name, record)]
        if not names:
            continue
        vectors = cache.read_images(split.train["sha256"].to_list())
        known = split.known_labels(settings.labels.names)
        prompts = _prompts(cache, known, settings)
        chosen = record.trained_on.choice if record.trained_on else None
        rows = _Rows(split, vectors, known)
        for name in names:
            head = make_head(name, prompts, settings.choose_by, settings.seed, chosen, record.blocks)
            fitted[record.identity, name], took = _fit(head, rows, record, settings, kept)
            fitted.took[record.identity, name] = HeadCost(took.seconds, took.on)
    return fitted


@dataclass(frozen=True)
class _Rows:
    """The training rows of a split with one encoder's vectors `[N, D]`; `known` are the labels among them."""

    split: Split
    vectors: np.ndarray
    known: Sequence[str]

    @cached_property
    def labels(self) -> np.ndarray:
        """`[N]`."""
        return self.split.train["label"].to_numpy()

    @cached_property
    def hashes(self) -> list[str]:
        """Of vectors, labels and groups: what a head is fitted on."""
        X, groups = np.ascontiguousarray(self.vectors), self.split.groups()
        texts = ["\n".join(map(str, column)) for column in (self.labels, () if groups is None else groups)]
        of_texts = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        return [f"{X.shape} {X.dtype}", hashlib.sha256(X.view(np.uint8).data).hexdigest(), *of_texts]


def _fit(head: Head, rows: _Rows, record: EncoderRecord, settings: Settings, kept: Path | None) -> tuple[Head, Work]:
    """The head, fitted, with all of its `choice_`; and what fitting took."""
    folds, groups = (settings.choose_by, settings.seed), rows.split.groups()
    place = None
    if kept:
        went_in = [*rows.hashes, rows.known, folds, record.trained_on, record.has_label_vectors]
        place = kept_fits.place_of(kept, head, went_in)
    if place and (found := kept_fits.read(place, rows.vectors)):
        return found
    began = time.perf_counter()
    head.fit(rows.vectors, rows.labels, groups=groups)
    took = Work(time.perf_counter() - began, machine())
    choice = left_out.choice_of(head, record.trained_on)
    if record.trained_on is None:
        labels = rows.split.scored_labels()["base"] or rows.known
        choice |= left_out.said(head, rows.vectors, rows.labels, groups, labels, *folds)
    if record.has_label_vectors and head.needs_prompts:
        choice["prompts"] = "none: a trained vector a label"
    head.choice_ = choice
    if place:
        kept_fits.write(place, head, rows.vectors, took, record.identity)
    return head, took


def _prompts(cache: Cache, labels: Sequence[str], settings: Settings) -> dict[str, np.ndarray]:
    """The vectors `[P, D]` of each label's prompts; empty for an encoder without text."""
    texts = cache.record.captions({label: settings.prompts[label] for label in labels})
    return {label: cache.read_prompts(some) for label, some in texts.items()}


def among(head: Head, labels: Sequence[str], cache: Cache, settings: Settings) -> Head | None:
    """The head for a test set with `labels`: itself, or the same head with other prompts if some are new.
    None if it cannot know new labels: it takes no prompts, or the encoder has trained label vectors."""
    if set(labels) <= set(head.classes_):
        return head
    renewed = getattr(head, "with_prompts", None)
    return renewed(_prompts(cache, labels, settings)) if renewed and not cache.record.has_label_vectors else None


def predict(
    fitted: Fitted, split: Split, encoders: Sequence[Cache], settings: Settings, sets: Sequence[TestSet]
) -> pl.DataFrame:
    """The predictions of all fitted heads on all test sets: one row per head and image, with the columns of
    `columns.PREDICTIONS`."""
    found, model, images = [], encoders[0].record, provenance.data_hash(split.rows())
    for cache in encoders:
        record = cache.record
        heads = {name: head for (identity, name), head in fitted.items() if identity == record.identity}
        for one in [one for one in sets if heads and (record.sees_perturbations or not one.perturbation)]:
            vectors = cache.read_images(one.rows["sha256"].to_list())
            about = (
                _about(record, model, split, settings)
                | {"images": images}
                | dict(zip(columns.TEST, one.key(), strict=True))
            )
            labels = Labels.of(one.labels) if one.labels else settings.labels
            asked = {name: among(head, labels.names, cache, settings) for name, head in heads.items()}
            for name, head in [(name, head) for name, head in asked.items() if head is not None]:
                of_head = {**about, "head": name, "chosen_by": head.choice_.get("by", "")}
                # A base encoder's vectors recur in every comparison, so neighbours can be remembered.
                with nullcontext() if record.trained_on else remembering(cache):
                    found.append(_answers(head, vectors, one.rows, labels, of_head))
                took = fitted.took[record.identity, name]  # measured now that libraries are loaded, once
                took.answer = took.answer or seconds_to_answer(head, vectors)
    return pl.concat(found)


def tabulate(
    predictions: pl.DataFrame,
    fitted: Fitted,
    split: Split,
    encoders: Sequence[Cache],
    settings: Settings,
    sets: Sequence[TestSet],
) -> pl.DataFrame:
    """The results table of one comparison's predictions on `sets`."""
    facts = {
        "train_rows": len(split.train),
        "margin": settings.margin,
        "code_version": code_version(),
        "config_hash": provenance.config_hash(vars(settings)),
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
    }
    images = predictions["images"][0]
    of_set = {one.key(): {"leaks_dropped": one.leaks, "data_hash": _data_hash(one, split, images)} for one in sets}
    costs = {cache.record.identity: EncoderCost(cache, split) for cache in encoders}
    rows = []
    for (identity, name), head in fitted.items():
        captions = costs[identity].cache.record.captions(settings.prompts).values()
        paid = partial(costs[identity].of, head, fitted.took[identity, name], sum(map(len, captions)))
        chosen = {"choice": json.dumps(head.choice_, sort_keys=True), **facts}
        mine = predictions.filter((pl.col("encoder_id") == identity) & (pl.col("head") == name))
        for one in sets:
            scored = mine.filter(
                pl.all_horizontal(pl.col(n) == v for n, v in zip(columns.TEST, one.key(), strict=True))
            )
            labels = list(one.labels) or list(settings.labels)
            at = head.choice_.get("threshold") if set(labels) == {str(label) for label in head.classes_} else None
            found = score(scored, labels, settings.seed, at)
            rows += [{**row, **chosen, **of_set[one.key()], **paid(one)} for row in found]
    table = pl.DataFrame(rows, schema=columns.schema(columns.RESULTS))
    return with_harmonic_mean(with_p_best(table, predictions))


def _data_hash(one: TestSet, split: Split, images: str) -> str:
    """The hash of the images used: `images` for an ordinary test set; else over the training images and `one`."""
    ordinary = not one.perturbation and not one.test_data
    return images if ordinary else provenance.data_hash(pl.concat([split.train, one.rows]))


def _about(record: EncoderRecord, model: EncoderRecord, split: Split, settings: Settings) -> dict[str, Any]:
    return {
        "dataset": settings.dataset,
        "held_out": split.held_out,
        "encoder": record.name,
        "model": model.model,
        "pretrained": model.pretrained,
        "encoder_id": record.identity,
        "recipe": record.trained_on.recipe if record.trained_on else "",
        "seed": settings.seed,
        "train_per_label": settings.train_per_label,
        "test_per_label": settings.test_per_label,
        "labels": json.dumps(settings.labels.names),
        "split_by": split.by,
        "study": "",
        columns.ADAPTED: "",
    }


def _answers(
    head: Head, vectors: np.ndarray, rows: pl.DataFrame, labels: Labels, about: Mapping[str, Any]
) -> pl.DataFrame:
    """One row per image. The most likely label is predicted; in a tie, the first."""
    probabilities = head.predict_proba(vectors)
    classes = [str(label) for label in head.classes_]
    named = {name: pl.lit(value, dtype=columns.PREDICTIONS[name][0]) for name, value in about.items()}
    of_label = probabilities[np.arange(len(probabilities)), [classes.index(label) for label in rows["label"]]]
    in_order = np.ascontiguousarray(probabilities[:, [classes.index(label) for label in labels]])
    found = {
        "predicted": pl.Series([classes[number] for number in probabilities.argmax(axis=1)], dtype=pl.String),
        "p_real": pl.Series(probabilities[:, classes.index(labels.positive)])
        if labels.positive
        else pl.lit(None, pl.Float64),
        "probabilities": pl.Series(in_order, dtype=pl.Array(pl.Float64, len(labels))).arr.to_list(),
        "p_predicted": pl.Series(probabilities.max(axis=1)),
        "p_label": pl.Series(of_label),
    }
    chosen = rows.select("path", "sha256", "category", "label")
    return chosen.with_columns(**found, **named).select(list(columns.PREDICTIONS))
