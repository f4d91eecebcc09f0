"""What a row cost: seconds until it can answer, time an answer takes, bytes, and labelled images."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from toolkit.cache.measured import Measured
from toolkit.cache.store import Cache
from toolkit.data.split import Split, TestSet
from toolkit.finetuning import checkpoints
from toolkit.finetuning import cost as training_cost
from toolkit.finetuning.cost import TrainingCost
from toolkit.heads import Head
from toolkit.storage.work import machine

BATCH = 64
"""A head's time to answer is measured on a batch of this size, as encoders embed images in."""


@dataclass
class HeadCost:
    """Wall seconds to choose and fit a head, and on which machine; seconds to answer for one image, here, None until it
    answered."""

    fitting: float
    on: str
    answer: float | None = None


@dataclass(frozen=True)
class EncoderCost:
    """What vectors of one encoder in the cache took to make, measured when they were made."""

    cache: Cache
    split: Split

    @cached_property
    def images(self) -> Measured:
        return self.cache.measured("images")

    @cached_property
    def prompts(self) -> Measured:
        return self.cache.measured("texts")

    @cached_property
    def training(self) -> TrainingCost:
        """Of the base encoder: nothing was trained, in no time. Of a checkpoint without a record: not known."""
        if self.cache.record.trained_on is None:
            return TrainingCost((0.0,), 0)
        return training_cost.read(self._checkpoint) or TrainingCost()

    @property
    def _checkpoint(self) -> Any:
        trained = self.cache.record.trained_on
        return checkpoints.folder_of(self.cache.folder.parent, trained.checkpoint if trained else "")

    def checkpoint_bytes(self) -> int | None:
        """Size of the fine-tuned weights; 0 for the base encoder, None if they are gone."""
        return training_cost.weights_bytes(self._checkpoint) if self.cache.record.trained_on else 0

    def of(self, head: Head, took: HeadCost, prompts: int, one: TestSet) -> dict[str, Any]:
        """The columns of `columns.RESULTS` on cost, for one head and test set; None for what was not measured, never 0.

        `prompts` is the number of prompts that the head compares images with, if it does.
        """
        record, train = self.cache.record, len(self.split.train) if head.learns else 0
        embedding = [_times(train, self.images.seconds)]
        embedding += [_times(prompts, self.prompts.seconds)] if head.needs_prompts else []
        stored = len(set(one.rows["sha256"]) | set(self.split.train["sha256"] if head.learns else ()))
        machines = [
            *self.images.on,
            *(self.prompts.on if head.needs_prompts else ()),
            self.training.on,
            took.on,
            machine(),
        ]
        precision = f" ({record.precision})" if record.has_text or record.blocks or record.trained_on else ""
        return {
            "embedding_seconds": _sum(embedding),
            "training_seconds": self.training.seconds,
            "fitting_seconds": took.fitting,
            "answer_ms": _times(1000, _sum([self.images.seconds, took.answer])),
            "parameters_trained": _sum([self.training.parameters, getattr(head, "parameters_", None)]),
            "bytes_an_image": self.images.bytes,
            "bytes_embedded": _times(stored, self.images.bytes),
            "bytes_checkpoint": self.checkpoint_bytes(),
            "images_labelled": len(self.split.train) if head.learns or record.trained_on else 0,
            "measured_on": " + ".join(dict.fromkeys(name for name in machines if name)) + precision,
        }


def seconds_to_answer(head: Head, vectors: np.ndarray) -> float | None:
    """Wall seconds a head takes for one image, in a batch of `BATCH` `[N, D]`; None for no images."""
    some, began = vectors[:BATCH], time.perf_counter()
    if not len(some):
        return None
    head.predict_proba(some)
    return (time.perf_counter() - began) / len(some)


def _sum(parts: list[Any]) -> Any:
    return None if any(part is None for part in parts) else sum(parts)


def _times(count: int, each: Any) -> Any:
    """None for what was not measured, if any of it was needed."""
    return count * each if each is not None else None if count else 0.0
