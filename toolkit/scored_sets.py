"""Test sets beyond base and novel: the same images perturbed, and those of another data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from toolkit import perturb
from toolkit.cache import Cache
from toolkit.embed import EncoderLike, embed_images
from toolkit.manifest import Dataset
from toolkit.perturb import Perturbation
from toolkit.protocol import ScoredSet, Selection

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Beyond:
    """What `compare` is to score beside base and novel: those again under each of `perturbations`, and the test images
    of the data set `other`, which has the same two labels."""

    perturbations: Sequence[Perturbation] = ()
    other: Dataset | None = None


NOTHING_BEYOND = Beyond()


@dataclass(frozen=True)
class Images:
    """A set to score, and the data set whose `read` gives its images."""

    scored: ScoredSet
    dataset: Dataset

    def title(self) -> str:
        """What a progress bar calls it."""
        return f"Embedding {self.scored.perturbation or self.scored.test_data}"


def perturbed_sets(
    dataset: Dataset, selection: Selection, perturbations: Sequence[Perturbation], cache: Path
) -> list[Images]:
    """Base and novel under each perturbation."""
    found = []
    for one in perturbations:
        changed = perturb.perturbed(dataset, one)
        for plain in selection.scored_sets():
            rows = perturb.perturbed_rows(dataset, plain.rows, one, cache)
            found.append(Images(ScoredSet(plain.test, rows, plain.leaks, perturbation=str(one)), changed))
    return found


def embed_all(
    sets: Sequence[Images], cache: Cache, load_encoder: Callable[[], EncoderLike], progress: Progress
) -> pl.DataFrame:
    """Embed the images that `cache` lacks; the encoder is loaded only then -> what was skipped, as EmbedReport."""
    skipped = [
        embed_images(one.dataset, one.scored.rows, load_encoder, cache, partial(progress, one.title())).skipped
        for one in sets
    ]
    return pl.concat(skipped)
