"""The grid: encoders x heads x test sets -> predictions -> the table. Needs the cache alone, no model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from toolkit import columns, provenance
from toolkit.cache import Cache
from toolkit.errors import SelectionError
from toolkit.heads import make_head
from toolkit.heads.neighbours import remembering
from toolkit.protocol import NONE, Selection
from toolkit.scoring import rescore, score, with_p_best

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


def compare(selection: Selection, encoders: Sequence[Cache], settings: Settings) -> Comparison:
    """Fit every head on every encoder's training vectors and score it on each test set.

    Raises SelectionError for an encoder that saw the held-out category or another training set, and MissingEmbeddings
    where vectors are not in the cache.
    """
    predictions, choices, fitted = [], {}, {}
    for cache in encoders:
        require_unseen(cache.record, selection)
        vectors = {name: cache.read_images(rows["sha256"].to_list()) for name, rows in selection.tests().items()}
        train = cache.read_images(selection.train["sha256"].to_list())
        prompts = {label: cache.read_prompts(list(texts)) for label, texts in settings.prompts.items()}
        for name in settings.heads:
            head = make_head(name, prompts, settings.choose_by)
            head.fit(train, selection.train["label"].to_numpy(), groups=_groups(selection.train))
            fitted[cache.record["identity"], name] = head
            choices[cache.record["identity"], name] = head.choice_
            for test, rows in selection.tests().items():
                about = {"test": test, "head": name, "chosen_by": head.choice_.get("by", "")}
                about |= _about(cache, selection, settings)
                with remembering(cache):
                    predictions.append(_predict(head, vectors[test], rows, list(settings.prompts)[1], about))
    every = pl.concat(predictions)
    return Comparison(tabulate(every, choices, selection, settings), every, fitted)


def require_unseen(record: Mapping[str, Any], selection: Selection) -> None:
    """Raise SelectionError unless the encoder's record proves that it never saw the held-out category.

    A base encoder has seen no image of ours. A fine-tuned one must have been trained on exactly the selection's
    training rows, which hold no image of that category.
    """
    if record["kind"] == "base":
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
) -> pl.DataFrame:
    """The results table of one comparison's predictions."""
    facts = {
        "train_rows": len(selection.train),
        "leaks_dropped": selection.leaks,
        "code_version": provenance.code_version(),
        "config_hash": provenance.config_hash(vars(settings)),
        "data_hash": provenance.data_hash(selection.rows()),
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
    }
    rows = []
    for (identity, head), choice in choices.items():
        chosen = {"choice": json.dumps(choice, sort_keys=True), **facts}
        mine = predictions.filter((pl.col("encoder_id") == identity) & (pl.col("head") == head))
        rows += [{**row, **chosen} for row in score(mine, list(settings.prompts), settings.seed)]
    table = pl.DataFrame(rows, schema=columns.schema(columns.RESULTS))
    return with_p_best(table, predictions)


def _groups(train: pl.DataFrame) -> np.ndarray | None:
    return None if train["category"].null_count() else train["category"].to_numpy()


def _about(cache: Cache, selection: Selection, settings: Settings) -> dict[str, Any]:
    record = cache.record
    return {
        "dataset": settings.dataset,
        "held_out": selection.held_out,
        "encoder": record["kind"],
        "model": record["model"],
        "pretrained": record["pretrained"],
        "encoder_id": record["identity"],
        "recipe": record.get("recipe", ""),
        "perturbation": "",
        "test_data": "",
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
