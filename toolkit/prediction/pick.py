"""Which of the kept heads predicts: the one that left-out training categories rate best. No test image decides."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.encoders.features import WITHOUT_MODEL
from toolkit.errors import CacheError, ResultsError, counted
from toolkit.evaluation import left_out
from toolkit.heads import HEADS
from toolkit.prediction.kept_heads import LAST, KeptHead, find
from toolkit.storage.records import read_record

NEAR_GUESSING = 0.95
"""From this share of the log loss of guessing on, a head hardly beats it."""


@dataclass(frozen=True)
class Pick:
    """The head to predict with. Of the `rivals` kinds of heads that it was chosen from, `unrated` have no honest score,
    `seen` of them because their encoder was trained on the images.

    `log_loss` is that of its kind on left-out training images (`left_out.honest_log_loss`), None for an unrated one.
    """

    head: KeptHead
    rivals: int
    unrated: int
    seen: int
    log_loss: float | None

    @property
    def chosen_by(self) -> str:
        """How it was chosen, in words."""
        if self.log_loss is None:
            seen = self.head.record.encoder.trained_on is not None
            why = left_out.SEEN if seen else "not chosen by category: nothing could be left out"
            return why if self.rivals == 1 else f"{why}; it is the first in the order of the tables"
        log_loss = f"log loss {self.log_loss:.3f} on left-out training images"
        if self.rivals == 1:
            return log_loss
        others = self.rivals - self.unrated
        without = f"; {self._unscored()}" if self.unrated else ""
        return f"{log_loss}, the lowest of {others}{without}" if others > 1 else f"{log_loss}{without}"

    @property
    def hardly_better(self) -> str:
        """A sentence where its log loss is near that of equal P for all labels, or above it; else nothing."""
        guessing = math.log(len(self.head.record.labels.names))
        if self.log_loss is None or self.log_loss < NEAR_GUESSING * guessing:
            return ""
        how = "hardly" if self.log_loss < guessing else "no"
        return f"That log loss is {how} better than guessing ({guessing:.3f})."

    def _unscored(self) -> str:
        if self.unrated > self.seen:
            return f"{counted(self.unrated, 'other')} {'has' if self.unrated == 1 else 'have'} no such score"
        if self.seen == 1:
            return "1 head on a fine-tuned encoder has no such score"
        return f"{self.seen} heads on fine-tuned encoders have no such score"


def best(folder: Path, encoder: str | None = None, head: str | None = None) -> Pick:
    """The head of the last `compare` with the lowest log loss on left-out training images.

    With several seeds or held-out values it is the kind of encoder and head with the lowest mean; of its heads the one
    of the first seed and the first held-out value by name. A kind without an honest score for all of its heads loses to
    one that has it. Among kinds without one, and among equals, the order is fixed: by encoder, `base` first; then by
    head, as tables list them; then by recipe. `encoder` (`base`, `finetuned`, or the start of an identity) and `head`
    restrict the choice; a head that does without CLIP is taken by name alone. Raises ResultsError if no head is left.
    """
    rivals = _of_last_compare(folder)
    clip = [kept for kept in rivals if kept.record.encoder.sees not in WITHOUT_MODEL]
    fitting = [kept for kept in (rivals if encoder or head else clip) if _fits(kept, encoder, head)]
    if not fitting:
        known = sorted({f"--encoder {s.record.encoder.name} --head {s.record.head}" for s in rivals})
        raise ResultsError(f"The last compare kept no such head. It kept {'; '.join(known)}.")
    kinds: dict[tuple[str, ...], list[KeptHead]] = {}
    for kept in fitting:
        kinds.setdefault(_kind(kept), []).append(kept)
    losses = {kind: _mean_loss(mine) for kind, mine in kinds.items()}
    order = [*HEADS, *(one.record.head for one in fitting)]  # a head of another version may have another name

    def rank(kind: tuple[str, ...]) -> tuple[object, ...]:
        loss, record = losses[kind], kinds[kind][0].record
        return loss is None, loss or 0.0, record.encoder.name, order.index(record.head), kind

    chosen = min(kinds, key=rank)
    kept = min(kinds[chosen], key=lambda one: (one.record.seed, one.record.held_out, one.key))
    unrated = [kind for kind, loss in losses.items() if loss is None]
    seen = sum(kinds[kind][0].record.encoder.trained_on is not None for kind in unrated)
    return Pick(kept, len(kinds), len(unrated), seen, losses[chosen])


def _of_last_compare(folder: Path) -> list[KeptHead]:
    every = find(folder)
    if not every:
        raise ResultsError(f"No head is kept in {folder}: run python cli.py compare (or run) first.")
    try:
        last = set(read_record(folder / LAST)["heads"])
    except (CacheError, KeyError):
        last = {kept.key for kept in every}
    return [kept for kept in every if kept.key in last] or every


def _mean_loss(heads: Sequence[KeptHead]) -> float | None:
    """The mean of their log losses on left-out images; None if one of them has none."""
    records = [kept.record for kept in heads]
    losses = [
        left_out.honest_log_loss(json.loads(record.choice or "{}"), record.head, record.encoder.trained_on)
        for record in records
    ]
    known = [loss for loss in losses if loss is not None]
    return float(np.mean(known)) if len(known) == len(losses) else None


def _fits(kept: KeptHead, encoder: str | None, head: str | None) -> bool:
    record = kept.record
    named = encoder is None or record.encoder.name == encoder or record.encoder.identity.startswith(encoder)
    return named and head in (None, record.head)


def _kind(kept: KeptHead) -> tuple[str, ...]:
    """The kind of a head: heads of one kind differ only in the held-out value and the seed."""
    record, encoder = kept.record, kept.record.encoder
    recipe = encoder.trained_on.recipe if encoder.trained_on else ""
    return encoder.model, encoder.pretrained, encoder.name, recipe, record.head, record.chosen_by
