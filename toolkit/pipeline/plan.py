"""The plan of a study: a typed value from what the user names (data, model, labels, split); every step takes it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.data.content_hashes import Contents
from toolkit.data.held_out import CATEGORY, held_out_values
from toolkit.data.labels import Labels, some
from toolkit.data.manifest import Dataset, Stages
from toolkit.data.near_copies import NearCopies, select_without
from toolkit.data.sources.assemble import AS_IT_LOOKS, Reading
from toolkit.data.split import NOTHING, Split, select, with_fewer
from toolkit.encoders.openclip import OpenClip, load
from toolkit.encoders.record import IMPORTED, EncoderRecord
from toolkit.encoders.source import Source
from toolkit.errors import EncoderError, MissingEmbeddings, SelectionError, did_you_mean
from toolkit.evaluation.paired import MARGIN
from toolkit.pipeline.prompts import Names, make_prompts


def silent(stage: str, done: int, total: int) -> None:
    """Does nothing; the default progress callback."""


@dataclass(frozen=True)
class Plan:
    """What the commands share: data, encoder, training and test images, and the folders for cache and results.

    `prompts` maps each label to its prompts. `split` names the values of the column `by` to hold out, one at a time.
    `shots` are numbers of training images per label, used one at a time in place of `train_per_label`. `asked` are the
    user's options, for the commands in messages; `typed` is the whole command, `data` the place of the images and
    `reading` how to read them, stored so that the study can be repeated. Plans on the same data share `read`, so that
    several encoders read the data once.
    """

    dataset: Dataset
    source: Source
    labels: Labels
    prompts: Mapping[str, Sequence[str]]
    split: tuple[str, ...] = ()
    by: str = CATEGORY
    train_per_label: int | None = 450
    shots: tuple[int, ...] = ()
    test_per_label: int | None = 100
    keep_leaks: bool = False
    drop_near_copies: bool = False
    seed: int = 0
    seeds: int | None = None
    margin: float = MARGIN
    cache: Path = Path("cache")
    results: Path = Path("results")
    asked: str = ""
    typed: str = ""
    data: str = ""
    reading: Reading = AS_IT_LOOKS
    progress: Stages = silent
    read: Contents | None = None

    def every_seed(self) -> Sequence[int]:
        """The seeds to run: `seed` alone, or 1 to `seeds`, which all draw their images; 0 takes the first ones."""
        return [self.seed] if self.seeds is None else range(1, self.seeds + 1)

    def every_size(self) -> Sequence[int | None]:
        """The numbers of training images per label to run, smallest first; None means all images."""
        return sorted(set(self.shots)) or [self.train_per_label]

    def held_out(self) -> list[str]:
        """The values to hold out, one at a time. Raises SelectionError for a value that the data does not have."""
        return held_out_values(self.dataset, self.split, self.by)

    def command(self, name: str) -> str:
        """The command line that runs `name` on the same plan."""
        return f"python cli.py {name} {self.asked}".strip()

    def texts(self) -> list[str]:
        """Every prompt."""
        return [text for texts in self.prompts.values() for text in texts]

    def captions(self, record: EncoderRecord, split: Split) -> dict[str, list[str]]:
        """What an encoder embeds for each label: its prompts; with label vectors, the labels that trained them."""
        known = split.known_labels(self.labels.names) if record.has_label_vectors else self.labels.names
        return record.captions({label: self.prompts[label] for label in known})

    def contents(self) -> Contents:
        """The images' contents, read when needed; shared with other plans on the same data."""
        return self.read or Contents(self.dataset, self.cache, partial(self.progress, "Reading"))

    def splits(self, contents: Contents) -> list[Split]:
        """One split for each seed, held-out value and size; reads the images that they need."""
        return [with_fewer(largest, size) for largest in self.largest(contents) for size in self.every_size()]

    def largest(self, contents: Contents) -> list[Split]:
        """The splits of the largest size; the smaller ones use a part of their images."""
        look, values = self.near_copies(), self.held_out()
        turns = [(seed, held_out) for seed in self.every_seed() for held_out in values]
        choices = [partial(self._select, contents, *turn) for turn in turns]
        return [select_without(look, choose) if self.drop_near_copies else choose() for choose in choices]

    def _select(self, contents: Contents, seed: int, held_out: str, passed_over: pl.Series = NOTHING) -> Split:
        sizes = self.every_size()[-1], self.test_per_label
        read = contents.hash_rows
        return select(contents.dataset, held_out, *sizes, self.keep_leaks, seed, read, self.by, passed_over)

    def near_copies(self) -> NearCopies:
        """The search for near copies of training images; no image is read yet."""
        return NearCopies(self.dataset, self.cache, partial(self.progress, "Looking for near copies"))

    def find_base(self) -> Cache | None:
        """The base encoder's cache if there is one, found without loading a model."""
        found = find_encoders(self.cache, self.source.is_source_of)
        return Cache(self.cache, found[-1]) if found else None

    def base(self) -> Cache:
        """The base encoder's cache. Raises MissingEmbeddings, naming the command to run, if there is none."""
        found = self.find_base()
        if found is None:
            what = f"Nothing of {self.dataset.name} is embedded with {self.source.model} yet"
            known = {one.model for one in find_encoders(self.cache, lambda one: one.name == "base")}
            guess = did_you_mean(self.source.model, known)
            has = f" (the cache has: {', '.join(sorted(known))})" if known else ""
            raise MissingEmbeddings(f"{what}{has}{f'.{guess} Else' if guess else ':'} run {self.command('embed')}")
        return found

    def has_model(self) -> bool:
        """Whether the encoder has a model: imported vectors have none."""
        known = self.find_base()
        return known is None or known.record.pretrained != IMPORTED

    def load(self) -> OpenClip:
        """The base encoder. Raises EncoderError for imported vectors, which have no model, and where the cache has
        vectors of other weights under this name."""
        known = self.find_base()
        if known and known.record.pretrained == IMPORTED:
            raise EncoderError(
                f"{self.source.model} names imported vectors, without a model to embed images: import the vectors of "
                "all images (python cli.py cache import), or name a model."
            )
        self.progress(f"Loading {self.source.model}", 0, 1)
        encoder = load(self.source)
        self.progress(f"Loading {self.source.model}", 1, 1)
        if known and known.record.identity != encoder.identity:
            raise EncoderError(
                f"{known.folder} has vectors of other weights, or of another preparation of images, than what "
                f"{self.source.model} {self.source.pretrained or ''} names today: remove them (python cli.py cache "
                f"remove {known.record.identity} --cache {shlex.quote(str(self.cache))}), or name another --cache."
            )
        return encoder


def make_plan(
    dataset: Dataset,
    source: Source,
    labels: Sequence[str] | None = None,
    prompts: Mapping[str, str | Sequence[str]] | None = None,
    positive: str | None = None,
    templates: Sequence[str] = (),
    names: Names | None = None,
    **fields: Any,
) -> Plan:
    """A plan for two or more `labels` of `dataset`, by default all of them.

    `prompts` maps labels to one or several prompts; the other labels get `templates` with their name from `names`
    filled in, else the study's prompt, else a plain sentence (`prompts.make_prompts`). `positive` is the label whose
    probability is reported (see `Labels.of`). `fields` are those of `Plan`. Raises SelectionError for fewer than two
    labels or for labels that the data does not have, and what `make_prompts` raises.
    """
    wanted = _told_apart(labels, dataset.labels())
    if positive is not None and positive not in wanted:
        guess = did_you_mean(positive, wanted)
        raise SelectionError(f"--positive {positive!r} is none of the labels {some(wanted)}.{guess}")
    made, selected = Labels.of(wanted, positive), dataset.with_labels(wanted)
    return Plan(selected, source, made, make_prompts(made, prompts or {}, templates, names), **fields)


def plans_of(plan: Plan, sources: Sequence[Source]) -> list[Plan]:
    """The same plan for each of several encoders; together they read the data once."""
    if len(sources) == 1:
        return [replace(plan, source=sources[0])]
    read = plan.contents()
    return [replace(plan, source=source, read=read) for source in sources]


def default_model(dataset: Dataset) -> str:
    """ViT-B-32, as in the study; for the built-in sample nano, which needs no download."""
    return "nano" if dataset.kind == "sample" else "ViT-B-32"


def _told_apart(wanted: Sequence[str] | None, present: list[str]) -> list[str]:
    labels = [label.strip() for label in wanted] if wanted else present
    if len(present) < 2:
        raise SelectionError(
            f"A comparison needs two labels or more, and the data has {present[0]} alone: add images of another one."
        )
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if len(labels) < 2 or twice is not None:
        wrong = f"--labels names {twice!r} twice" if twice is not None else f"--labels names {labels[0]} alone"
        raise SelectionError(f"{wrong}: name two labels or more, --labels A,B. The data has {some(present)}.")
    return labels
