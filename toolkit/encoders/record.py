"""A typed record that describes an encoder without loading it, stored beside its vectors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import numpy as np

from toolkit.storage.records import as_plain, of_plain

IMPORTED = "imported"
"""The weights of an encoder whose vectors another tool made (`cache.exchange`): there is no model to run."""


class Sees(StrEnum):
    """The part of an image that an encoder reads."""

    LAST_LAYER = "last layer"
    BLOCKS = "blocks"
    PATCHES = "patches"
    PIXELS = "pixels"
    FILE_FACTS = "file facts"


INSIDE = (Sees.BLOCKS, Sees.PATCHES)
"""What sees the inside of another encoder's image tower."""


@dataclass(frozen=True)
class TrainedOn:
    """Exactly what a fine-tuned encoder was trained on, and how.

    `train_sha256` is a hash over the training images and their labels (`data.split.training_set_sha256`), `choice` is
    what the recipe chose inside the training images, or None.
    """

    base_identity: str
    checkpoint: str
    recipe: str
    settings: Mapping[str, Any]
    seed: int
    held_out: str
    train_categories: tuple[str, ...]
    train_sha256: str
    train_rows: int
    choice: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EncoderRecord:
    """An encoder's identity and properties.

    `identity` is a hash over weights, layers, preprocessing and precision. `known_as` lists the names of these weights
    (`Source.called`). `has_text` tells whether it embeds prompts. `trained_on` is None if it was trained on none of the
    data's images. For an encoder that sees blocks or patches, `base_identity` is the encoder they belong to, and
    `blocks` the number of columns of each part.
    """

    VERSION: ClassVar[int] = 2

    identity: str
    model: str
    pretrained: str
    dimension: int
    precision: str = "fp32"
    sees: str = Sees.LAST_LAYER
    has_text: bool = True
    weights_sha256: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    known_as: tuple[str, ...] = ()
    base_identity: str = ""
    blocks: tuple[int, ...] = ()
    trained_on: TrainedOn | None = None

    @property
    def name(self) -> str:
        """Its name in tables: `base`, `blocks`, `patches`, `pixels` or `file facts`; `finetuned`, …"""
        seen = "" if self.sees == Sees.LAST_LAYER else str(self.sees)
        return f"finetuned {seen}".strip() if self.trained_on else seen or "base"

    def is_inside_of(self, tower: "EncoderRecord") -> bool:
        """Whether it describes the blocks or patches of the encoder `tower`."""
        return self.is_inside and self.base_identity == tower.identity

    def is_of_checkpoint(self, key: str) -> bool:
        """Whether it is the encoder that the training with this key made."""
        return self.name == "finetuned" and self.trained_on is not None and self.trained_on.checkpoint == key

    @property
    def is_inside(self) -> bool:
        """Whether it sees the inside of another encoder's image tower."""
        return self.sees in INSIDE

    @property
    def stored_as(self) -> str:
        """The type of its numbers in the cache. Blocks have unit length and many columns; in half precision probes
        read the same from them (docs/speed.md)."""
        return "float16" if self.is_inside else "float32"

    @property
    def has_label_vectors(self) -> bool:
        """Whether it has no text, and was fine-tuned with a trained vector a label in place of prompts."""
        return not self.has_text and self.trained_on is not None and self.sees == Sees.LAST_LAYER

    def captions(self, prompts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """What it embeds for each label: its prompts; with label vectors, the label itself; nothing for neither."""
        if self.has_label_vectors:
            return {label: [label] for label in sorted(prompts)}
        return {label: list(texts) for label, texts in prompts.items()} if self.has_text else {}

    @property
    def sees_perturbations(self) -> bool:
        """False for file facts: a perturbed image is a new file with facts of its own."""
        return self.sees != Sees.FILE_FACTS

    def plain(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return as_plain(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "EncoderRecord":
        """The record from JSON, also as version 1 wrote it. Raises CacheError for missing or unknown fields."""
        plain = _of_version_1(plain) if "version" not in plain else plain
        return of_plain(cls, plain, f"the encoder {plain.get('identity')}")


def _of_version_1(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record of version 1, which had a `kind` and the training facts among its other fields."""
    old = dict(plain)
    kind, weights = old.pop("kind", ""), old.pop("file_sha256", "") or old.get("pretrained", "")
    of_training = ("checkpoint", "recipe", "settings", "seed", "held_out", "train_categories", "train_sha256")
    trained = {name: old.pop(name) for name in (*of_training, "train_rows", "choice") if name in old}
    plain_model = kind in ("base", "finetuned")
    new: dict[str, Any] = {
        "version": EncoderRecord.VERSION,
        "sees": str(Sees.LAST_LAYER) if plain_model else kind,
        "has_text": plain_model,
        "known_as": [f"{old.get('model')} {weights}"] if kind == "base" else [],
        "blocks": [],
        "trained_on": None,
    }
    if kind == "finetuned":
        new["trained_on"] = {"choice": None, "base_identity": old.pop("base_identity", ""), **trained}
    return {"weights_sha256": "", "preprocessing": {}, "base_identity": "", **old, **new}


class Encoder(Protocol):
    """Turns images, and for some encoders prompts, into vectors.

    `batch_size` is the number of images for `embed_images`. An encoder that can embed several batches in parallel also
    has `side_by_side`: a context that gives their number and the threads to run them.
    """

    record: EncoderRecord
    batch_size: int

    def prepare(self, data: bytes) -> np.ndarray:
        """An image file's bytes -> one image for `embed_images`. Raises ImageError."""
        ...

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, …]` from `prepare` -> `[N, record.dimension]` float32, not normalised."""
        ...

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """`P` prompts -> `[P, record.dimension]` float32. Only what `record.captions` names."""
        ...


LoadEncoder = Callable[[], Encoder]
