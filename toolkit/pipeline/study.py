"""The toolkit as a library, for notebooks; it runs the same code as the command line.

>>> from toolkit import Study
>>> study = Study("data/cifake.zip", model="nano", split="cat")  # doctest: +SKIP
>>> study.manifest                                               # doctest: +SKIP
>>> vectors = study.embed()                                      # doctest: +SKIP
>>> vectors.train.X, vectors.train.y                             # doctest: +SKIP
>>> study.compare()                                              # doctest: +SKIP
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.data.sources import Reading, open_data, place_of
from toolkit.data.split import Split, groups_of
from toolkit.encoders import openclip
from toolkit.encoders.record import EncoderRecord
from toolkit.errors import SelectionError
from toolkit.finetuning.recipes import make_recipe
from toolkit.pipeline.embed import embed
from toolkit.pipeline.finetune import finetune
from toolkit.pipeline.plan import Plan, default_model, make_plan

if TYPE_CHECKING:
    from toolkit.encoders.openclip import OpenClip


@dataclass(frozen=True)
class Vectors:
    """The embeddings of some images, row by row.

    `X` `[N, D]` float32 are the projected vectors, not normalised (heads do that). `y` `[N]` are the labels.
    `categories` `[N]` (None if the data has none) are the `groups` of a head's `fit`. `images` are the rows of the
    manifest, with `sha256`.
    """

    X: np.ndarray
    y: np.ndarray
    categories: np.ndarray | None
    images: pl.DataFrame


@dataclass(frozen=True)
class Embeddings:
    """One encoder's vectors of one comparison's images and prompts.

    `train` and `base` contain no image of the category `held_out`; `novel` contains only test images of it (no rows if
    nothing is held out). `prompts` maps each label to its prompts' vectors `[P, D]`; `encoder` is the encoder's record.
    """

    held_out: str
    train: Vectors
    base: Vectors
    novel: Vectors
    prompts: dict[str, np.ndarray]
    encoder: EncoderRecord


READING = ("layout", "columns", "test_share", "equalise")


class Study:
    """A data set, a CLIP model, and the categories to hold out of training.

    `data` is what `--data` takes (None: CIFAKE if it is in `data/`, else the built-in sample), `model` what `--model`
    takes, `split` the category to hold out, several of them, `all`, or `none` (None: `cat` in CIFAKE and the sample,
    else `none`). `settings` are the other options by name: `pretrained`, `precision`, `device`, `labels` (two or more),
    `positive`, `prompts` (label -> one or several), `templates`, `names` (label -> name, or a file), `train_per_label`,
    `test_per_label` (None: every image), `shots` (several numbers of training images per label: `compare` has rows for
    each, vectors are for the largest), `keep_leaks`, `seed`, `layout`, `columns` (path, label, split, category -> the
    column), `test_share`, `equalise`, `cache` and `results` (folders), and `progress`, called with stage, done, total.

    Images are read and embedded when a method needs them; what is in the cache is never computed again. Methods raise
    `toolkit.ToolkitError` for errors that the user can fix.
    """

    def __init__(
        self,
        data: str | Path | None = None,
        model: str | None = None,
        split: str | Sequence[str] | None = None,
        **settings: Any,
    ):
        settings |= {name: Path(settings.get(name, name)) for name in ("cache", "results")}
        reading = Reading(**{name: settings.pop(name) for name in READING if name in settings})
        dataset = open_data(data, cache=settings["cache"], asked=reading)
        choice = {name: settings.pop(name) for name in ("pretrained", "precision", "device") if name in settings}
        source = openclip.source(model or default_model(dataset), **choice)
        parts = (split,) if isinstance(split, str) else tuple(split or ())
        self.plan = make_plan(dataset, source, split=parts, data=place_of(data), reading=reading, **settings)

    @property
    def manifest(self) -> pl.DataFrame:
        """Every image of the labels: path, label, category (or null), split; Categorical but for the path."""
        return self.plan.dataset.rows

    @cached_property
    def encoder(self) -> "OpenClip":
        """The base CLIP, loaded on first use."""
        return openclip.load(self.plan.source)

    def embed(self, held_out: str | None = None) -> Embeddings:
        """The base encoder's vectors; embeds what the cache lacks.

        `held_out` selects the comparison if the study holds out several categories in turn; None: the first.
        """
        done = embed(self.plan)
        return _read(done.cache, _one(self.plan.largest(done.contents), held_out), self.plan)

    def finetune(self, held_out: str | None = None, recipe: str = "study", **changes: Any) -> Embeddings:
        """The vectors of a CLIP fine-tuned only on `train`; trains and embeds what the cache lacks.

        `changes` are fields of `toolkit.Recipe`: `epochs=2`, `learning_rate=1e-5`, …
        """
        how = make_recipe(recipe, **changes)
        split = _one(self.plan.largest(self.plan.contents()), held_out)
        plan = replace(
            self.plan, split=(split.held_out,), seed=split.seed, seeds=None, shots=tuple(sorted(self.plan.shots))[-1:]
        )
        (done,) = finetune(plan, how)
        record = find_encoders(plan.cache, lambda one: one.is_of_checkpoint(done.folder.name))[-1]
        return _read(Cache(plan.cache, record), split, plan)

    def compare(
        self,
        heads: Sequence[str] = ("zero-shot", "logreg", "layer-probes", "knn", "shortcut"),
        choose_by: str = "category",
    ) -> pl.DataFrame:
        """Score heads on the base encoder and on each fine-tuned one, on base and novel images; embeds what is missing.

        The table has the columns of `evaluation.columns.RESULTS` (docs/results.md), one row for each encoder, head,
        test set and class; it is also stored in the results folder, with the predictions.
        """
        from toolkit.pipeline.compare import compare

        embed(self.plan)
        return compare(self.plan, heads, choose_by).table


def load_encoder(
    model: str, pretrained: str | None = None, precision: str = "fp32", device: str = "auto"
) -> "OpenClip":
    """Load a CLIP by open_clip's name, `nano`, `timm:NAME`, or `hf-hub:OWNER/NAME`, with weights by tag or file.

    Raises EncoderError if model or weights are unknown or not available.
    """
    return openclip.load(openclip.source(model, pretrained, precision, device))


def _one(splits: list[Split], held_out: str | None) -> Split:
    found = [one for one in splits if held_out in (None, one.held_out)]
    if not found:
        turns = ", ".join(one.held_out for one in splits)
        raise SelectionError(f"This study holds out {turns}, not {held_out!r}: say Study(…, split={held_out!r}).")
    return found[0]


def _read(cache: Cache, split: Split, plan: Plan) -> Embeddings:
    train, base, novel = (_vectors(cache, rows) for rows in (split.train, split.base, split.novel))
    prompts = {label: cache.read_prompts(some) for label, some in plan.captions(cache.record, split).items()}
    return Embeddings(split.held_out, train, base, novel, prompts, cache.record)


def _vectors(cache: Cache, rows: pl.DataFrame) -> Vectors:
    return Vectors(cache.read_images(rows["sha256"].to_list()), rows["label"].to_numpy(), groups_of(rows), rows)
