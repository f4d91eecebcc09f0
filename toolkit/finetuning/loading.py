"""Encoders by their records, each loaded when it is first needed, and only then."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.cache.embedding import EncoderLike, Progress, embed_images
from toolkit.cache.store import Cache
from toolkit.data.manifest import Dataset
from toolkit.encoders.blocks import KIND as BLOCKS
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.features import FEATURES
from toolkit.encoders.openclip import Encoder, Source
from toolkit.errors import CacheError, EncoderError
from toolkit.finetuning import checkpoints


class LazyEncoder:
    """Loads an encoder when it is first needed, and only then."""

    def __init__(self, loader: Callable[[], Encoder]):
        self.loader = loader
        self.loaded: Encoder | None = None

    def __call__(self) -> Encoder:
        self.loaded = self.loaded or self.loader()
        return self.loaded


class Loaders:
    """For the record of any encoder in a cache, what loads it. The base encoder, which all share, is loaded once."""

    def __init__(self, cache: Path, origin: Source, load_base: Callable[[], Encoder]):
        self.cache, self.origin = cache, origin
        self.base = LazyEncoder(load_base)

    def of(self, record: Mapping[str, Any]) -> Callable[[], EncoderLike]:
        """What loads the encoder with this record."""
        if record["kind"] in FEATURES:
            return FEATURES[record["kind"]]
        if record["kind"] == BLOCKS:
            return lambda: Blocks(self.base())
        return self.base if record["kind"] == "base" else LazyEncoder(lambda: self._finetuned(record))

    def _finetuned(self, record: Mapping[str, Any]) -> Encoder:
        checkpoint = checkpoints.read(checkpoints.folder_of(self.cache, record["checkpoint"]))
        if checkpoint is None:
            raise EncoderError("The fine-tuned weights are gone or damaged: run python cli.py finetune again.")
        return checkpoints.load_finetuned(checkpoint, self.origin)


def read_features(
    dataset: Dataset, rows: pl.DataFrame, kinds: Sequence[str], root: Path, on_progress: Progress | None = None
) -> tuple[list[Cache], list[str]]:
    """The caches of these `kinds` of `encoders.features.FEATURES` for `rows`, read from the images where they lack
    them; and a line for each that could not be stored, which is left out."""
    caches, notes = [], []
    for kind in kinds:
        features = FEATURES[kind]()
        cache = Cache(root, features.record)
        try:
            embed_images(dataset, rows, lambda features=features: features, cache, on_progress)  # type: ignore[misc]
            caches.append(cache)
        except CacheError as error:
            notes.append(f"What looks at {kind} is left out: {error}")
    return caches, notes
