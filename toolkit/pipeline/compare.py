"""Compare, in six steps: select, check, fit, score, tabulate, store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.data import near_copies
from toolkit.data.held_out import NONE, in_words
from toolkit.data.labels import Labels
from toolkit.data.split import Split, TestSet
from toolkit.encoders.features import WITHOUT_MODEL
from toolkit.encoders.record import IMPORTED, EncoderRecord, Sees
from toolkit.errors import MissingEmbeddings, SelectionError, counted, listed
from toolkit.evaluation import audit, grid
from toolkit.evaluation.adapted import Share, adapted
from toolkit.evaluation.grid import Comparison, Settings
from toolkit.evaluation.test_sets import NOTHING_BEYOND, Beyond, MoreSets
from toolkit.finetuning.loading import Loaders, read_without_model
from toolkit.heads import fits, head_class
from toolkit.pipeline.plan import Plan
from toolkit.prediction import kept_heads
from toolkit.results import learning, run_records, tables
from toolkit.results.studies import with_studies
from toolkit.storage.kept import FITS


@dataclass(frozen=True)
class Compared:
    """The comparisons, one for each split; those of them with most training images, whose heads are kept (all, unless
    there are several sizes); and lines for the user."""

    comparisons: list[Comparison]
    largest: list[Comparison]
    notes: list[str]

    @cached_property
    def table(self) -> pl.DataFrame:
        """The results of this command only, in the stored order."""
        return tables.in_order(self._with_studies[0])

    @property
    def predictions(self) -> pl.DataFrame:
        """The predictions of this command only."""
        return self._with_studies[1]

    @cached_property
    def _with_studies(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        frames = [(one.table, one.predictions) for one in self.comparisons]
        return with_studies(*(pl.concat(of_each) for of_each in zip(*frames, strict=True)))


def compare(plan: Plan, heads: Sequence[str], choose_by: str = "category", beyond: Beyond = NOTHING_BEYOND) -> Compared:
    """Score every head on every encoder in the cache that belongs to this plan, and store the table.

    Works from the cache: a model is loaded only if `beyond` asks for test images that were never embedded. Raises
    MissingEmbeddings, naming the command to run, if the base encoder's vectors are missing.
    """
    splits, base = plan.splits(plan.contents()), plan.base()
    if beyond.adapt and any(split.new_labels for split in splits):
        raise SelectionError("--adapt needs the labels that were trained, and --split-by label holds some out.")
    loaders = Loaders(plan.cache, plan.source, plan.load)
    named = partial(tables.free_name, tables.other_images(plan.results) if beyond.other else pl.DataFrame())
    extra = MoreSets(beyond, plan.labels.names, plan.cache, loaders, plan.progress, named)
    comparisons, largest, notes, not_tuned = [], [], [], []
    for split in splits:
        settings = _settings(plan, heads, choose_by, split)
        encoders, said = ready_encoders(plan, base, split, heads)
        said += _left_out(heads, encoders)
        not_tuned += [] if any(cache.record.trained_on for cache in encoders) else [split]
        more = extra.of(plan.dataset, split, encoders, plan.test_per_label, plan.keep_leaks)
        comparisons.append(compare_split(split, encoders, settings, more, beyond.adapt, plan.cache / FITS))
        if split.train_per_label == plan.every_size()[-1]:
            _keep_heads(plan, comparisons[-1], split, encoders)
            largest.append(comparisons[-1])
        notes += [*said, *comparisons[-1].notes(), *_know_no_new_label(comparisons[-1], split)]
    notes += [
        *_not_fine_tuned(plan, base, not_tuned),
        *extra.notes(),
        *audit.lines(comparisons, splits, plan.cache),
        *near_copies.notes(plan.near_copies(), splits),
    ]
    done = Compared(comparisons, largest, notes)
    if len(plan.every_size()) > 1:
        done = replace(done, notes=[*notes, *learning.lines(done.table, done.predictions)])
    return _stored(plan, done)


def compare_all(
    plans: Sequence[Plan], heads: Sequence[str], choose_by: str = "category", beyond: Beyond = NOTHING_BEYOND
) -> Compared:
    """`compare` several encoders on the same data, one plan each; `predict` then chooses among all their heads."""
    done = [compare(plan, heads, choose_by, beyond) for plan in plans]
    if len(done) == 1:
        return done[0]
    comparisons = [one for compared in done for one in compared.comparisons]
    kept = [one for compared in done for one in compared.largest]
    kept_heads.remember_last(plans[0].results / kept_heads.FOLDER, kept)
    of_all = set.intersection(*(set(one.notes) for one in done))
    names = [f"{plan.source.model} {plan.source.pretrained}".strip() for plan in plans]
    pairs = [(name, note) for name, one in zip(names, done, strict=True) for note in one.notes]
    notes = [note if note in of_all else f"{model}: {note}" for model, note in pairs]
    return Compared(comparisons, kept, list(dict.fromkeys(notes)))


def compare_split(
    split: Split,
    encoders: Sequence[Cache],
    settings: Settings,
    more: Sequence[TestSet] = (),
    adapt: Share | None = None,
    kept: Path | None = None,
) -> Comparison:
    """Check, fit, score and tabulate one split, on its own test sets and on those in `more`; with `adapt` also adapted.
    Heads that are in the folder `kept` are not fitted again.

    The table's `model` is that of the first of `encoders`. Raises SelectionError for an encoder that was trained on the
    held-out value or on another training set, and MissingEmbeddings if vectors are not in the cache.
    """
    for cache in encoders:
        grid.require_unseen(cache.record, split)
    sets = [*split.test_sets(), *more]
    fitted = grid.fit(split, encoders, settings, kept)
    predictions = grid.predict(fitted, split, encoders, settings, sets)
    if adapt:
        predictions = pl.concat([predictions, adapted(predictions, settings.labels, adapt)])
    return Comparison(grid.tabulate(predictions, fitted, split, encoders, settings, sets), predictions, fitted)


def _settings(plan: Plan, heads: Sequence[str], choose_by: str, split: Split) -> Settings:
    sizes = split.train_per_label, plan.test_per_label
    of_plan = plan.dataset.name, plan.labels, plan.prompts
    return Settings(*of_plan, tuple(heads), choose_by, split.seed, *sizes, plan.keep_leaks, plan.margin)


def ready_encoders(plan: Plan, base: Cache, split: Split, heads: Sequence[str]) -> tuple[list[Cache], list[str]]:
    """The caches that contain all of the split's images, the base encoder's first; and lines for the user."""
    keys = split.rows()["sha256"].to_list()
    missing, prompts = base.missing_images(keys), _missing_captions(plan, base, split)
    if missing or prompts:
        if base.record.pretrained == IMPORTED:
            what = f"{plan.source.model} names imported vectors, and has none of {counted(len(missing), 'image')}"
            raise MissingEmbeddings(f"{what}: import these too (python cli.py cache import).")
        parts = [counted(len(found), noun) for found, noun in ((missing, "image"), (prompts, "prompt")) if found]
        cached = _cached(base) if missing else ""
        raise MissingEmbeddings(f"Not embedded yet: {' and '.join(parts)}{cached}. Run {plan.command('embed')}")
    finetuned = _ready(plan, keys, split, lambda record: _was_trained_on(record, base.record, split))
    towers = [base.record, *(cache.record for cache in finetuned)]
    inside = _ready(plan, keys, split, lambda record: any(map(record.is_inside_of, towers)))
    wanted = {sees for name in heads for sees in head_class(name).reads if sees in WITHOUT_MODEL}
    watch = partial(plan.progress, "Reading")
    others, notes = read_without_model(plan.dataset, split.rows(), sorted(wanted), plan.cache, watch)
    return [base, *inside, *finetuned, *others], notes


def _not_fine_tuned(plan: Plan, base: Cache, splits: Sequence[Split]) -> list[str]:
    """A line about the training sets on which no encoder was fine-tuned."""
    if not splits or base.record.pretrained == IMPORTED:
        return []
    values = [in_words(split.held_out, split.by) for split in splits if split.held_out != NONE]
    without = f" without {listed(list(dict.fromkeys(values)))}" if values else ""
    sizes = dict.fromkeys(str(split.train_per_label) for split in splits)
    on = f"{listed(list(sizes))} images a label" if plan.shots else "these images"
    command = plan.command("finetune")
    return [f"No encoder is fine-tuned{without} on {on}: {command} does it; compare again to see its rows."]


def _cached(base: Cache) -> str:
    """What the cache has, since a plan with other options may have been embedded."""
    if not (count := base.count_images()):
        return ""
    has = f"{counted(count, 'image')} of this encoder {'is' if count == 1 else 'are'} in the cache"
    return f" ({has}; were --train-per-label or --test-per-label given before?)"


def _left_out(heads: Sequence[str], encoders: Sequence[Cache]) -> list[str]:
    """A line for each head that needs prompts, if no encoder has text. Raises SelectionError if no head is left."""
    useless = [name for name in heads if not any(fits(name, cache.record) for cache in encoders)]
    what = "names imported vectors" if encoders[0].record.pretrained == IMPORTED else "is an image tower alone"
    why = f"{encoders[0].record.model} {what} and embeds no prompts"
    if len(useless) == len(heads):
        raise SelectionError(f"No head is left: {why}, which {', '.join(useless)} needs. Name a probe: --heads logreg.")
    return [f"{name} is left out: {why}." for name in useless]


def _know_no_new_label(comparison: Comparison, split: Split) -> list[str]:
    """With held-out labels, a line about the heads that are scored on base only."""
    if not split.new_labels:
        return []
    rows = {test: comparison.table.filter(pl.col("test") == test) for test in ("base", "novel")}
    only = rows["base"].join(rows["novel"], on=["encoder_id", "head"], how="anti")["head"].unique(maintain_order=True)
    return [f"Not scored on new labels, which a trained head cannot know: {', '.join(only)}."] if len(only) else []


def _ready(plan: Plan, keys: list[str], split: Split, wanted: Callable[[EncoderRecord], bool]) -> list[Cache]:
    """The caches of the `wanted` encoders that contain all of these images and, if they embed text, the prompts."""
    caches = [Cache(plan.cache, record) for record in find_encoders(plan.cache, wanted)]
    return [cache for cache in caches if not cache.missing_images(keys) and not _missing_captions(plan, cache, split)]


def _missing_captions(plan: Plan, cache: Cache, split: Split) -> list[str]:
    """The prompts that the cache lacks; for an encoder with label vectors, the labels that it lacks."""
    captions = plan.captions(cache.record, split)
    return cache.missing_prompts([text for texts in captions.values() for text in texts])


def _was_trained_on(record: EncoderRecord, base: EncoderRecord, split: Split) -> bool:
    """Whether the encoder was fine-tuned from `base` on exactly this training set."""
    trained = record.trained_on
    return (
        trained is not None
        and record.name == "finetuned"
        and trained.base_identity == base.identity
        and trained.held_out == split.held_out
        and trained.train_sha256 == split.train_sha256()
        and trained.seed == split.seed
    )


def _keep_heads(plan: Plan, comparison: Comparison, split: Split, encoders: Sequence[Cache]) -> None:
    """Store the heads that look at the picture, for `predict`: file facts say nothing about images of other origin."""
    caches = [cache for cache in encoders if cache.record.sees != Sees.FILE_FACTS]
    labels = Labels.of(split.known_labels(plan.labels.names), None if split.new_labels else plan.labels.positive)
    place = plan.results / kept_heads.FOLDER
    kept_heads.keep(place, comparison, split, caches, plan.source, labels, plan.reading.equalise)


def _stored(plan: Plan, done: Compared) -> Compared:
    """Write the tables and how they were made; damaged files are reported in the notes."""
    damaged = tables.store(plan.results, done.table, done.predictions)
    kept_heads.remember_last(plan.results / kept_heads.FOLDER, done.largest)
    run_records.note(plan.results, done.table, _how(plan))
    return replace(done, notes=list(dict.fromkeys([*done.notes, *damaged])))


def _how(plan: Plan) -> dict[str, object]:
    """What is needed to repeat a comparison of this plan, and to find its images and vectors."""
    return {
        "command": plan.typed,
        "asked": plan.asked,
        "data": plan.data,
        "reading": plan.reading.facts(),
        "cache": str(plan.cache.absolute()),
        "prompts": {label: list(texts) for label, texts in plan.prompts.items()},
        "precision": plan.source.precision,
    }
