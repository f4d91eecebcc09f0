"""Fine-tune: embed with the base encoder; for each split, train an encoder and embed everything again with it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from toolkit.cache import embedding
from toolkit.cache.store import Cache, find_encoders
from toolkit.data.split import Split
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import EncoderRecord
from toolkit.encoders.source import Source
from toolkit.errors import DataError, EncoderError, counted
from toolkit.finetuning import checkpoints
from toolkit.finetuning.checkpoints import Checkpoint
from toolkit.finetuning.recipes import Recipe
from toolkit.finetuning.run import NOT_TRAINED
from toolkit.finetuning.search import Training, make
from toolkit.pipeline.embed import embed, filled_together
from toolkit.pipeline.plan import Plan


def untrainable(plan: Plan) -> str | None:
    """Why the plan's encoder cannot be fine-tuned, as the end of a sentence; None if it can."""
    if not plan.has_model():
        return "names imported vectors, without a model to fine-tune"
    return NOT_TRAINED.get(plan.source.precision)


@dataclass(frozen=True)
class Finetuned:
    """One fine-tuned encoder: the held-out value, the mean loss of each epoch, whether it was trained now, numbers of
    images embedded now and before, its folder, seed, and requested training images per label."""

    held_out: str
    losses: list[float]
    trained: bool
    embedded: int
    cached: int
    folder: Path
    seed: int = 0
    train_per_label: int | None = None


def finetune(plan: Plan, recipe: Recipe, inside: str | None = None) -> list[Finetuned]:
    """Fine-tune once for each split of the plan, and embed everything again with the new encoder.

    With `inside`, also the blocks or patches of its image tower. Finished trainings and vectors in the cache are
    reused. An encoder without text is trained with label vectors in place of prompts. Raises EncoderError for imported
    vectors, and what `embed` raises.
    """
    if why := untrainable(plan):
        raise EncoderError(f"{plan.source.model} {why}: {plan.command('compare')} compares heads on its vectors.")
    base = embed(plan)
    of_splits = [(_training(plan, recipe, base.cache.record, split), split) for split in base.splits]
    return [_finetune_one(plan, training, split, inside) for training, split in of_splits]


def _training(plan: Plan, recipe: Recipe, base: EncoderRecord, split: Split) -> Training:
    known = split.known_labels(plan.labels.names)
    captions = {label: plan.prompts[label] if base.has_text else [label] for label in known}
    return Training(
        base,
        plan.load,
        plan.dataset,
        split.train,
        split.held_out,
        captions,
        replace(recipe, seed=split.seed),
        plan.cache,
        plan.progress,
    )


def _finetune_one(plan: Plan, training: Training, split: Split, inside: str | None) -> Finetuned:
    before = checkpoints.read(training.folder)
    checkpoint = before or make(training)
    encoder = cache(lambda: _load_or_train_again(training, checkpoint, plan.source))
    vectors = _cache_of(training, encoder, trained=before is None)
    embedding.embed_prompts(plan.texts() if training.base.has_text else list(training.prompts), encoder, vectors)
    watch = partial(plan.progress, "Embedding again")
    report = embedding.embed_images(plan.dataset, split.rows(), *filled_together(vectors, encoder, inside), watch)
    if len(report.skipped):
        first = f"the first: {report.skipped['path'][0]}, {report.skipped['reason'][0]}"
        what = counted(len(report.skipped), "image")
        raise DataError(f"{what} could not be embedded again ({first}). All else is kept: run the command again.")
    losses = list(checkpoint.record.losses)
    counts, of_split = (report.embedded, report.cached), (split.seed, split.train_per_label)
    return Finetuned(split.held_out, losses, before is None, *counts, checkpoint.folder, *of_split)


def _cache_of(training: Training, encoder: Callable[[], OpenClip], trained: bool) -> Cache:
    """The fine-tuned encoder's cache; the encoder is loaded if the cache is new."""
    key = training.trained_on.checkpoint
    known = find_encoders(training.cache, lambda one: one.is_of_checkpoint(key))
    return Cache(training.cache, known[-1] if known and not trained else encoder().record)


def _load_or_train_again(training: Training, checkpoint: Checkpoint, origin: Source) -> OpenClip:
    """Load the fine-tuned encoder; if its weights are damaged, train it again, which gives the same weights."""
    try:
        return checkpoints.load_finetuned(checkpoint, origin)
    except EncoderError:
        return checkpoints.load_finetuned(make(training), origin)
