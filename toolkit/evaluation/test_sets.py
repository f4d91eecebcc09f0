"""Test sets beyond base and novel: the same images perturbed, and those of another data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from toolkit.cache.embedding import embed_images
from toolkit.cache.store import Cache
from toolkit.data import perturb
from toolkit.data.content_hashes import Contents
from toolkit.data.manifest import Dataset, Stages
from toolkit.data.perturb import Perturbation
from toolkit.data.split import Split, TestSet, first_tests
from toolkit.errors import SelectionError
from toolkit.evaluation.adapted import Share
from toolkit.finetuning.loading import Loaders

Named = Callable[[str, pl.DataFrame], str]


@dataclass(frozen=True)
class Beyond:
    """Test sets beyond base and novel: these two under each of `perturbations`, and the test images of the data set
    `other`, which has the same labels. With `adapt` every test set is scored adapted to itself, too."""

    perturbations: Sequence[Perturbation] = ()
    other: Dataset | None = None
    adapt: Share | None = None


NOTHING_BEYOND = Beyond()


@dataclass(frozen=True)
class Images:
    """A test set, and the data set that reads its images."""

    scored: TestSet
    dataset: Dataset

    def embed(self, cache: Cache, loaders: Loaders, progress: Stages) -> pl.DataFrame:
        """Embed the images missing in `cache`; the encoder is loaded only if there are any. Returns the images
        skipped."""
        watch = partial(progress, f"Embedding {self.scored.perturbation or self.scored.test_data}")
        return embed_images(self.dataset, self.scored.rows, loaders.of(cache.record), cache, watch).skipped


class MoreSets:
    """Finds the sets that `beyond` asks for and embeds them with every encoder.

    `labels` are those of the comparison; raises SelectionError where the other data set lacks one. `named` gives the
    other data's name in the tables, from its own name and its images (columns path, sha256).
    """

    def __init__(
        self, beyond: Beyond, labels: Sequence[str], root: Path, loaders: Loaders, progress: Stages, named: Named
    ):
        self.perturbations, self.root = beyond.perturbations, root
        self.loaders, self.progress = loaders, progress
        other = beyond.other and beyond.other.with_labels(labels)
        self.other = other and Contents(other, root, partial(progress, f"Reading {other.name}"))
        self.named, self.name, self.leaks = named, "", 0

    def of(
        self, dataset: Dataset, split: Split, caches: Sequence[Cache], test_per_label: int | None, keep: bool
    ) -> list[TestSet]:
        """The sets for one comparison on `dataset`, embedded in all `caches`, the base encoder's first; `keep` says
        that images of the training set are no leaks."""
        found = perturbed_sets(dataset, split, self.perturbations, self.root)
        if self.other and split.new_labels:
            raise SelectionError(
                "--test-data has every label and --split-by label trains on some: name one of the two."
            )
        if self.other:
            seen = split.train["sha256"].clear() if keep else split.train["sha256"]
            found.append(self._other_images(self.other, seen, test_per_label, caches[0]))
        for cache in caches:
            for one in found:
                if cache.record.sees_perturbations or not one.scored.perturbation:
                    one.embed(cache, self.loaders, self.progress)
        return [one.scored for one in found]

    def _other_images(self, contents: Contents, seen: pl.Series, per_label: int | None, base: Cache) -> Images:
        """Unreadable images are replaced by the next ones."""
        dataset = contents.dataset
        while True:
            rows, leaks = first_tests(dataset, per_label, contents.hash_rows, seen)
            self.name = self.named(dataset.name, rows)
            images = Images(TestSet("other", rows, leaks, test_data=self.name), dataset)
            skipped = images.embed(base, self.loaders, self.progress)
            self.leaks = max(self.leaks, leaks)
            if skipped.is_empty():
                return images
            contents.note(skipped)

    def notes(self) -> list[str]:
        """Lines for the user about the other data set."""
        if not self.other:
            return []
        name, bad = self.other.dataset.name, len(self.other.skipped())
        said = {"unreadable": bad, "byte for byte in the training set": self.leaks}
        parts = [f"{count} {text}" for text, count in said.items() if count]
        lines = [f"Passed over in {name}: {', '.join(parts)}."] if parts else []
        if self.name != name:
            lines.append(f"The results have rows about other images called {name!r}: these are {self.name!r}.")
        return lines


def perturbed_sets(dataset: Dataset, split: Split, perturbations: Sequence[Perturbation], root: Path) -> list[Images]:
    """Base and novel under each perturbation; `root` is the cache's folder, where the hashes are stored."""
    found = []
    for one in perturbations:
        changed = perturb.perturbed(dataset, one)
        for plain in split.test_sets():
            rows = perturb.perturbed_rows(dataset, plain.rows, one, root)
            found.append(Images(replace(plain, rows=rows, perturbation=str(one)), changed))
    return found
