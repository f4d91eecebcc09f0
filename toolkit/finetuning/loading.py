"""Load the encoder of a record, when it is first needed."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import polars as pl

from toolkit.cache.embedding import embed_images
from toolkit.cache.store import Cache
from toolkit.data.manifest import Dataset, Progress
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.features import WITHOUT_MODEL
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import EncoderRecord, LoadEncoder
from toolkit.encoders.source import Source
from toolkit.errors import CacheError, EncoderError
from toolkit.finetuning import checkpoints


class Loaders:
    """Functions that load the encoders of a cache, by their records. The shared base encoder is loaded once."""

    def __init__(self, root: Path, origin: Source, load_base: Callable[[], OpenClip]):
        self.root, self.origin = root, origin
        self.base = cache(load_base)

    def of(self, record: EncoderRecord) -> LoadEncoder:
        """A function that loads the encoder with this record."""
        if record.sees in WITHOUT_MODEL:
            return WITHOUT_MODEL[record.sees]
        clip = cache(lambda: self._finetuned(record)) if record.trained_on else self.base
        return cache(lambda: Blocks(clip(), record.sees)) if record.is_inside else clip

    def _finetuned(self, record: EncoderRecord) -> OpenClip:
        assert record.trained_on is not None
        checkpoint = checkpoints.read(checkpoints.folder_of(self.root, record.trained_on.checkpoint))
        if checkpoint is None:
            raise EncoderError("The fine-tuned weights are gone or damaged: run python cli.py finetune again.")
        return checkpoints.load_finetuned(checkpoint, self.origin)


def read_without_model(
    dataset: Dataset, rows: pl.DataFrame, wanted: Sequence[str], root: Path, on_progress: Progress | None = None
) -> tuple[list[Cache], list[str]]:
    """The caches of features that need no model, for `rows`; missing ones are computed from the images.

    `wanted` are keys of `encoders.features.WITHOUT_MODEL`. Features that cannot be stored are left out, with a line for
    the user each."""
    caches, notes = [], []
    for sees in wanted:
        facts = Cache(root, WITHOUT_MODEL[sees]().record)
        try:
            embed_images(dataset, rows, WITHOUT_MODEL[sees], facts, on_progress)
            caches.append(facts)
        except CacheError as error:
            notes.append(f"The heads on {sees} are left out: {error}")
    return caches, notes
