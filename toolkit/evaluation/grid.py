"""The grid: encoders x heads x test sets -> predictions -> the table. Needs the cache alone, no model."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.split import NONE, ScoredSet, Selection
from toolkit.encoders.blocks import KIND as BLOCKS
from toolkit.encoders.features import FEATURES, can_tell
from toolkit.errors import SelectionError
from toolkit.evaluation import columns, provenance
from toolkit.evaluation.scoring import rescore, score, with_p_best
from toolkit.heads import fits, make_head
from toolkit.heads.neighbours import remembering

RECURRING = ("base", BLOCKS, *FEATURES)
"""Kinds of encoders that no held-out category changes: they saw none of our images, and meet all of them again."""

__all__ = ["Comparison", "Settings", "compare", "require_unseen", "rescore", "score", "tabulate", "with_p_best"]


@dataclass(frozen=True)
class Settings:
    """What decides a comparison, beside its rows and encoders.

    `prompts` maps the two labels, in their order, to their prompts; the second label's probability is reported.
    """

    dataset: str
    prompts: Mapping[str, Sequence[str]]
    heads: Sequence[str] = ("zero-shot", "logreg", "knn")
    choose_by: str = "category"
    seed: int = 0
    train_per_label: int | None = 450
    test_per_label: int | None = 100
    keep_leaks: bool = False


@dataclass(frozen=True)
class Comparison:
    """`table` has the columns of `columns.RESULTS`, `predictions` those of `columns.PREDICTIONS`; `heads` are the
    fitted ones by (encoder identity, name)."""

    table: pl.DataFrame
    predictions: pl.DataFrame
    heads: dict[tuple[str, str], Any]

    def notes(self) -> list[str]:
        """What heads have to say to the user, as where so many images trained that they were fitted in another way."""
        return [line for head in self.heads.values() for line in getattr(head, "notes_", [])]


def compare(
    selection: Selection, encoders: Sequence[Cache], settings: Settings, more: Sequence[ScoredSet] = ()
) -> Comparison:
    """Fit every head on every encoder's training vectors and score it on each test set, and on `more` of them.

    The first of `encoders` gives the comparison its model's name. A head is fitted on those encoders alone that give
    what it looks at (`heads.fits`). Raises SelectionError for an encoder that saw the held-out category or another
    training set, and MissingEmbeddings where vectors are not in the cache.
    """
    sets, model = [*selection.scored_sets(), *more], encoders[0].record
    predictions: list[pl.DataFrame] = []
    fitted: dict[tuple[str, str], Any] = {}
    for cache in encoders:
        require_unseen(cache.record, selection)
        heads = _fitted_heads(cache, selection, settings)
        fitted |= {(cache.record["identity"], name): head for name, head in heads.items()}
        for one in [one for one in sets if heads and can_tell(cache.record["kind"], one.perturbation)]:
            vectors = cache.read_images(one.rows["sha256"].to_list())
            about = _about(cache, model, selection, settings) | dict(zip(columns.TEST, one.key(), strict=True))
            for name, head in heads.items():
                of_head = {**about, "head": name, "chosen_by": head.choice_.get("by", "")}
                with remembering(cache) if cache.record["kind"] in RECURRING else nullcontext():
                    predictions.append(_predict(head, vectors, one.rows, list(settings.prompts)[1], of_head))
    every = pl.concat(predictions)
    choices = {key: head.choice_ for key, head in fitted.items()}
    return Comparison(tabulate(every, choices, selection, settings, sets), every, fitted)


def _fitted_heads(cache: Cache, selection: Selection, settings: Settings) -> dict[str, Any]:
    """Those of the settings' heads that look at what this encoder gives, fitted on the training rows."""
    names = [name for name in settings.heads if fits(name, cache.record["kind"])]
    if not names:
        return {}
    train, y = cache.read_images(selection.train["sha256"].to_list()), selection.train["label"].to_numpy()
    with_prompts = fits("zero-shot", cache.record["kind"])
    texts = settings.prompts.items() if with_prompts else ()
    prompts = {label: cache.read_prompts(list(some)) for label, some in texts}
    heads = {}
    for name in names:
        head = make_head(name, prompts, settings.choose_by, settings.seed, cache.record.get("choice"))
        heads[name] = head.fit(train, y, groups=_groups(selection.train))
        head.choice_ = _choice(head, cache.record)
    return heads


def require_unseen(record: Mapping[str, Any], selection: Selection) -> None:
    """Raise SelectionError unless the encoder's record proves that it never saw the held-out category.

    A base encoder and its blocks have seen no image of ours, and pixels and file facts come from no training. A
    fine-tuned one must have been trained on exactly the selection's training rows, which hold no image of that
    category.
    """
    if record["kind"] in RECURRING:
        return
    seen = record.get("train_categories")
    same = record.get("train_sha256") == selection.train_sha256() and record.get("held_out") == selection.held_out
    if not same or seen is None or (selection.held_out != NONE and selection.held_out in seen):
        raise SelectionError(
            f"The record of the fine-tuned encoder {record.get('identity')} does not show that it was trained on this "
            f"comparison's images ({selection.held_out!r} held out): run python cli.py finetune "
            f"--split {selection.held_out}."
        )


def tabulate(
    predictions: pl.DataFrame,
    choices: Mapping[tuple[str, str], Mapping[str, Any]],
    selection: Selection,
    settings: Settings,
    sets: Sequence[ScoredSet],
) -> pl.DataFrame:
    """The results table of one comparison's predictions on `sets`."""
    facts = {
        "train_rows": len(selection.train),
        "code_version": provenance.code_version(),
        "config_hash": provenance.config_hash(vars(settings)),
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
    }
    of_set = {one.key(): {"leaks_dropped": one.leaks, "data_hash": _data_hash(one, selection)} for one in sets}
    rows = []
    for (identity, head), choice in choices.items():
        chosen = {"choice": json.dumps(choice, sort_keys=True), **facts}
        mine = predictions.filter((pl.col("encoder_id") == identity) & (pl.col("head") == head))
        for row in score(mine, list(settings.prompts), settings.seed):
            rows.append({**row, **chosen, **of_set[tuple(row[name] for name in columns.TEST)]})
    table = pl.DataFrame(rows, schema=columns.schema(columns.RESULTS))
    return with_p_best(table, predictions)


def _data_hash(one: ScoredSet, selection: Selection) -> str:
    """Over all of an ordinary comparison's images; over training images and `one` where that is not among them."""
    ordinary = not one.perturbation and not one.test_data
    return provenance.data_hash(selection.rows() if ordinary else pl.concat([selection.train, one.rows]))


def _groups(train: pl.DataFrame) -> np.ndarray | None:
    return None if train["category"].null_count() else train["category"].to_numpy()


def _choice(head: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the head chose and, as `recipe`, what its encoder's recipe chose before it."""
    before = record.get("choice")
    return {"by": before["by"], **head.choice_, "recipe": before} if before else head.choice_


def _about(cache: Cache, model: Mapping[str, Any], selection: Selection, settings: Settings) -> dict[str, Any]:
    record = cache.record
    return {
        "dataset": settings.dataset,
        "held_out": selection.held_out,
        "encoder": record["kind"],
        "model": model["model"],
        "pretrained": model["pretrained"],
        "encoder_id": record["identity"],
        "recipe": record.get("recipe", ""),
        "seed": settings.seed,
        "train_per_label": settings.train_per_label,
        "test_per_label": settings.test_per_label,
    }


def _predict(
    head: Any, vectors: np.ndarray, rows: pl.DataFrame, positive: str, about: Mapping[str, Any]
) -> pl.DataFrame:
    """One row an image. The likelier label wins; of two equally likely ones, the first."""
    odds = head.predict_proba(vectors)
    classes = [str(label) for label in head.classes_]
    named = {name: pl.lit(value, dtype=columns.PREDICTIONS[name][0]) for name, value in about.items()}
    predicted = pl.Series([classes[number] for number in odds.argmax(axis=1)], dtype=pl.String)
    return (
        rows.select("path", "sha256", "category", "label")
        .with_columns(predicted=predicted, p_real=pl.Series(odds[:, classes.index(positive)]), **named)
        .select(list(columns.PREDICTIONS))
    )
