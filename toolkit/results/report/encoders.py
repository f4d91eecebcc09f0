"""Several encoders side by side: the best head of each, on the same images."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from toolkit.evaluation import columns
from toolkit.heads import HEADS, head_class
from toolkit.results.entrants import REPETITION, Entrant, Subject, studies, subject
from toolkit.results.report.verdict import Duel, duel

SAME = [name for name in columns.QUESTION if name not in ("model", "pretrained")]
"""What the studies of several models share, beside the images of each repetition."""

RULE = (
    "Each encoder is represented by one head, chosen without the test images. For a frozen encoder it is the head with "
    "the lowest log loss on left-out training images. For a fine-tuned one it is the head that it was trained with, "
    "since every head looks good on images that trained the encoder; without that head, as on its blocks, it is left "
    "out. Each is compared with the most accurate of them on the same images; p is that of the exact McNemar test "
    "(over several runs, of the paired interval, too; over six held-out values or more, of the sign-flip test), "
    "corrected for the number of comparisons (Holm 1979). The most accurate one was picked on these images, which "
    "flatters it a little."
)


@dataclass(frozen=True)
class Row:
    """One encoder. `duel` is with the best one on the test set that decides, None for that one itself, and `p` the
    corrected p-value."""

    model: str
    entrant: Entrant
    duel: Duel | None = None
    p: float | None = None

    @property
    def name(self) -> str:
        """The model, and what was done with it."""
        return f"{self.model} · {self.entrant.encoder}"


def side_by_side(table: pl.DataFrame, predictions: pl.DataFrame, shown: Subject) -> list[Row]:
    """Every encoder that was compared on the images of `shown`, the most accurate first; none where only one model was.

    `table` and `predictions` are a results folder's.
    """
    rivals = _rivals(table, predictions, shown)
    if len(rivals) < 2:
        return []
    names = [one.about["model"] for one in rivals]
    rows, images = [], []
    for number, rival in enumerate(rivals):
        model, weights = rival.about["model"], rival.about["pretrained"]
        keyed = {entrant.key: f"{number} {entrant.key}" for entrant in rival.entrants}
        images.append(rival.predictions.drop("probabilities").with_columns(pl.col("entrant").replace_strict(keyed)))
        for entrant in _one_an_encoder(rival, shown.decides):
            rows.append(
                Row(
                    f"{model} ({weights})" if names.count(model) > 1 else model,
                    replace(entrant, key=keyed[entrant.key]),
                )
            )
    if len({row.model for row in rows}) < 2:
        return []
    best, *others = sorted(rows, key=lambda row: -row.entrant.scores[shown.decides].mean)
    every = pl.concat(images)
    duels = [duel(every, row.entrant.key, best.entrant.key, shown.decides) for row in others]
    corrected = holm([one.p for one in duels])
    return [best, *(replace(row, duel=d, p=p) for row, d, p in zip(others, duels, corrected, strict=True))]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many there are (Holm 1979, section 2): each smallest one, then the next, times as
    many as are left, and never less than the one before.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for before, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - before) * p_values[number]))
        corrected[number] = least
    return corrected


def _rivals(table: pl.DataFrame, predictions: pl.DataFrame, shown: Subject) -> list[Subject]:
    """The newest study of each model with the same question and the same images in each repetition as `shown`."""
    found: dict[tuple[str, str], Subject] = {}
    for number, about in enumerate(studies(table), start=1):
        model = about["model"], about["pretrained"]
        if model not in found and all(about[name] == shown.about[name] for name in SAME):
            one = subject(table, predictions, number)
            if _repetitions(one) == _repetitions(shown):
                found[model] = one
    return list(found.values())


def _repetitions(one: Subject) -> set[tuple[Any, ...]]:
    return set(one.table.select(*REPETITION, "images").iter_rows())


def _one_an_encoder(rival: Subject, decides: str) -> Iterator[Entrant]:
    """One entrant for each encoder of a study that the test set `decides` was put to, by `RULE`; what does without CLIP
    is left out."""
    losses, whole = _left_out_losses(rival.table), {one.key for one in rival.ranked()}
    encoders: dict[tuple[bool, str], list[Entrant]] = {}
    for entrant in rival.entrants:
        if entrant.key in whole and decides in entrant.scores:
            encoders.setdefault((entrant.way == "finetune", entrant.encoder), []).append(entrant)
    for (tuned, _), entrants in encoders.items():
        if fit_to_choose := [one for one in entrants if not tuned or _was_trained_with(one)]:
            yield min(fit_to_choose, key=lambda one: losses.get(one.key, float("inf")))


def _was_trained_with(entrant: Entrant) -> bool:
    """Whether the entrant's head is the one that fine-tuning trains: it learns nothing itself."""
    name = entrant.head.split(" ")[0]  # behind it may stand how it chose
    return name in HEADS and not head_class(name).learns


def _left_out_losses(table: pl.DataFrame) -> dict[str, float]:
    """The mean log loss on training images left out, of each entrant that chose something by it."""
    choices = table.filter(pl.col("class") == "all").unique(["entrant", *REPETITION], maintain_order=True)
    found: dict[str, list[float]] = {}
    for key, choice in choices.select("entrant", "choice").iter_rows():
        loss = json.loads(choice or "{}").get("log_loss")
        if loss is not None:
            found.setdefault(key, []).append(float(loss))
    return {key: sum(each) / len(each) for key, each in found.items()}
