"""What the commands do, in their order, without a word printed: embed, fine-tune, compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from toolkit.cache import embedding
from toolkit.cache.store import Cache, find_encoders
from toolkit.data.content_hashes import Contents
from toolkit.data.manifest import Dataset
from toolkit.data.split import Selection, held_out_categories, select
from toolkit.encoders.blocks import KIND as BLOCKS
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.openclip import Encoder, Source, load
from toolkit.errors import DataError, EncoderError, MissingEmbeddings
from toolkit.evaluation.test_sets import NOTHING_BEYOND, Beyond, MoreSets
from toolkit.finetuning import checkpoints
from toolkit.finetuning.checkpoints import Checkpoint
from toolkit.finetuning.loading import LazyEncoder, Loaders, read_features
from toolkit.finetuning.recipes import Recipe
from toolkit.finetuning.search import Training, make
from toolkit.prediction import kept_heads
from toolkit.results import run_records, tables
from toolkit.storage import distributed

if TYPE_CHECKING:
    from toolkit.evaluation.grid import Comparison

MOST_SKIPPED = 0.01

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Plan:
    """What the commands share: the data, the encoder, who trains and who tests, and where things are kept.

    `prompts` maps the two labels, in their order, to their prompts; the second label's probability is what heads
    report. `asked` is how the user chose all this on the command line, for the commands that messages name; `typed` is
    the whole command and `data` where the images are, for whoever runs it again.
    """

    dataset: Dataset
    source: Source
    prompts: Mapping[str, Sequence[str]]
    split: tuple[str, ...] = ()
    train_per_label: int | None = 450
    test_per_label: int | None = 100
    keep_leaks: bool = False
    seed: int = 0
    seeds: int | None = None
    cache: Path = Path("cache")
    results: Path = Path("results")
    asked: str = ""
    typed: str = ""
    data: str = ""
    progress: Progress = silent

    def every_seed(self) -> Sequence[int]:
        """The seeds for which everything is done: `seed` alone, or the first `seeds` from 0 on."""
        return [self.seed] if self.seeds is None else range(self.seeds)

    def command(self, name: str) -> str:
        """The command line that runs `name` on the same plan."""
        return f"python cli.py {name} {self.asked}".strip()

    def texts(self) -> list[str]:
        """Every prompt."""
        return [text for texts in self.prompts.values() for text in texts]


def contents_of(plan: Plan) -> Contents:
    """Nothing is read yet."""
    return Contents(plan.dataset, plan.cache, partial(plan.progress, "Reading"))


def selections_of(plan: Plan, contents: Contents) -> list[Selection]:
    """One for each seed and category that the plan holds out."""
    sizes = plan.train_per_label, plan.test_per_label
    return [
        select(contents.dataset, held_out, *sizes, plan.keep_leaks, seed, contents.hash_rows)
        for seed in plan.every_seed()
        for held_out in held_out_categories(plan.dataset, plan.split)
    ]


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: images (by content) and prompts embedded now, images that were there before, the unreadable
    ones, test images dropped as leaks, notes for the user, and the cache that holds it all."""

    embedded: int
    cached: int
    prompts: int
    skipped: pl.DataFrame
    leaks: int
    notes: list[str]
    cache: Cache
    plan: Plan
    contents: Contents

    @cached_property
    def selections(self) -> list[Selection]:
        """One for each category that the plan holds out. Nothing is read for it any more."""
        return selections_of(self.plan, self.contents)


def embed(plan: Plan, strict: bool = False) -> Embedded:
    """Embed every image and prompt of the plan that the cache lacks, with the base encoder.

    Raises DataError, after everything readable is stored, where more than 1 % of the images (or with `strict` any)
    could not be read.
    """
    distributed.start()
    contents, encoder = contents_of(plan), LazyEncoder(lambda: _load(plan))
    # Before a model is loaded: a mistake in data or split shows at once, and the room that this takes is free again.
    leaks, wanted = _read_what_is_needed(plan, contents)
    cache = Cache(plan.cache, base_record(plan) or encoder().record)
    prompts, embedded = embedding.embed_prompts(plan.texts(), encoder, cache), 0
    while True:
        report = _embed_what_was_read(plan, contents, wanted, encoder, cache)
        embedded += report.embedded
        if report.skipped.is_empty():
            break
        _pass_over(plan, contents, report.skipped)
        leaks, wanted = _read_what_is_needed(plan, contents)  # an unreadable image makes room: supports stay whole
    cached = report.cached + report.embedded - embedded
    _list_skipped(plan, contents.skipped())
    _complain(plan, contents, strict)
    return Embedded(embedded, cached, prompts, contents.skipped(), leaks, cache.damaged, cache, plan, contents)


def embed_blocks(plan: Plan, base: Embedded) -> int:
    """Embed with the blocks of the base encoder (`blocks.Blocks`), too -> how many images those were.

    `base` is what `embed` gave. `compare` then has the probes' rows on them.
    """
    encoder = LazyEncoder(lambda: _load(plan))
    known = _blocks_of(plan, base.cache)
    cache = Cache(plan.cache, known[-1] if known else Blocks(encoder()).record)
    embedded = 0
    for selection in base.selections:
        embedded += embedding.embed_images(
            plan.dataset, selection.rows(), lambda: Blocks(encoder()), cache, partial(plan.progress, "Embedding blocks")
        ).embedded
    return embedded


def _blocks_of(plan: Plan, base: Cache) -> list[dict[str, object]]:
    return find_encoders(plan.cache, kind=BLOCKS, base_identity=base.record["identity"])


def _ready_blocks(plan: Plan, base: Cache, selection: Selection) -> list[Cache]:
    """The blocks of the base encoder, where they are embedded for all of these images."""
    caches = [Cache(plan.cache, record) for record in _blocks_of(plan, base)]
    return [cache for cache in caches if not cache.missing_images(selection.rows()["sha256"].to_list())]


def _read_what_is_needed(plan: Plan, contents: Contents) -> tuple[int, np.ndarray]:
    """Read as many images as the plan asks for, and keep no more than their keys -> how many were dropped as leaks, and
    the numbers of the rows to embed."""
    return sum(selection.leaks for selection in selections_of(plan, contents)), contents.readable()


def _load(plan: Plan) -> Encoder:
    plan.progress(f"Loading {plan.source.model}", 0, 1)
    encoder = load(plan.source)
    plan.progress(f"Loading {plan.source.model}", 1, 1)
    return encoder


def base_record(plan: Plan) -> dict[str, object] | None:
    """The base encoder's record, if the cache knows it already: no model is loaded."""
    found = find_encoders(plan.cache, **plan.source.fields())
    return found[-1] if found else None


def _embed_what_was_read(
    plan: Plan, contents: Contents, wanted: np.ndarray, encoder: Callable[[], Encoder], cache: Cache
) -> embedding.EmbedReport:
    """Embed some of the images at a time. Those that were passed over as leaks are bytes of the training set."""
    done, reports = 0, []
    for rows in contents.slices(wanted):
        done += len(rows)

        def watch(now: int, missing: int, upto: int = done) -> None:
            plan.progress("Embedding", upto - missing + now, len(wanted))

        reports.append(embedding.embed_images(plan.dataset, rows, encoder, cache, watch))
    embedded, skipped = sum(report.embedded for report in reports), pl.concat([report.skipped for report in reports])
    return embedding.EmbedReport(embedded, len(wanted) - embedded - len(skipped), skipped)


def _pass_over(plan: Plan, contents: Contents, skipped: pl.DataFrame) -> None:
    contents.note(skipped)
    if skipped["sha256"].null_count():  # files vanish or change: look no further for others in their place
        _list_skipped(plan, contents.skipped())
        _complain(plan, contents, strict=False)


def _list_skipped(plan: Plan, skipped: pl.DataFrame) -> None:
    if distributed.rank() == 0:
        tables.write_skipped(plan.results, skipped)


def _complain(plan: Plan, contents: Contents, strict: bool) -> None:
    skipped, looked_at = contents.skipped(), contents.looked_at()
    if len(skipped) and (strict or len(skipped) > MOST_SKIPPED * looked_at):
        raise DataError(
            f"{len(skipped)} of {looked_at} images could not be read (the first: {skipped['path'][0]}, "
            f"{skipped['reason'][0]}). What could be read is embedded; {plan.results / tables.SKIPPED} lists the rest."
        )


@dataclass(frozen=True)
class Finetuned:
    """One fine-tuned encoder: which category it never saw, the mean loss of each epoch, what was embedded, its seed."""

    held_out: str
    losses: list[float]
    trained: bool
    embedded: int
    cached: int
    folder: Path
    seed: int = 0


def finetune(plan: Plan, recipe: Recipe) -> list[Finetuned]:
    """Fine-tune once for each held-out category, and embed everything again with the new encoder.

    What was trained or embedded before is not done again. Raises what `embed` raises.
    """
    base = embed(plan)
    return [_finetune_one(plan, recipe, base, selection) for selection in base.selections]


def _finetune_one(plan: Plan, recipe: Recipe, base: Embedded, selection: Selection) -> Finetuned:
    recipe = replace(recipe, seed=selection.seed)
    training = Training(
        base.cache.record,
        lambda: load(plan.source),
        plan.dataset,
        selection.train,
        selection.held_out,
        plan.prompts,
        recipe,
        plan.cache,
        plan.progress,
    )
    facts = training.facts()
    folder = checkpoints.folder_of(plan.cache, facts["checkpoint"])
    before = checkpoints.read(folder)
    checkpoint = before or make(training)
    encoder = LazyEncoder(lambda: _load_or_train_again(training, checkpoint, plan.source))
    trained = before is None
    known = find_encoders(plan.cache, kind="finetuned", checkpoint=facts["checkpoint"])
    cache = Cache(plan.cache, known[-1] if known and not trained else encoder().record)
    embedding.embed_prompts(plan.texts(), encoder, cache)
    report = embedding.embed_images(
        plan.dataset,
        selection.rows(),
        encoder,
        cache,
        lambda done, total: plan.progress("Embedding again", done, total),
    )
    return Finetuned(
        selection.held_out,
        checkpoint.record["losses"],
        trained,
        report.embedded,
        report.cached,
        checkpoint.folder,
        selection.seed,
    )


def _load_or_train_again(training: Training, checkpoint: Checkpoint, origin: Source) -> Encoder:
    """Weights whose damage shows only now, since nobody needed them before, are trained anew: to the same ones."""
    try:
        return checkpoints.load_finetuned(checkpoint, origin)
    except EncoderError:
        return checkpoints.load_finetuned(make(training), origin)


@dataclass(frozen=True)
class Compared:
    """The comparison of each held-out category, and lines that the user should read."""

    comparisons: "list[Comparison]"
    selections: list[Selection]
    notes: list[str]

    @property
    def table(self) -> pl.DataFrame:
        """The results of this command alone, in the order in which they are stored."""
        return tables.in_order(pl.concat([comparison.table for comparison in self.comparisons]))

    @property
    def predictions(self) -> pl.DataFrame:
        """The predictions of this command alone."""
        return pl.concat([comparison.predictions for comparison in self.comparisons])


def compare(plan: Plan, heads: Sequence[str], choose_by: str = "category", beyond: Beyond = NOTHING_BEYOND) -> Compared:
    """Score every head on every encoder that the cache holds for this plan, and store the table.

    Works from the cache: a model is loaded only where `beyond` asks for test images that were never embedded. Raises
    MissingEmbeddings, naming the command, where the base encoder's vectors are not there.
    """
    from toolkit.evaluation import audit
    from toolkit.evaluation.grid import Settings  # scikit-learn takes a second to import, and embedding does without
    from toolkit.evaluation.grid import compare as walk
    from toolkit.heads import READS

    selections = selections_of(plan, contents_of(plan))
    record = base_record(plan)
    if record is None:
        raise MissingEmbeddings(
            f"Nothing of {plan.dataset.name} is embedded with {plan.source.model} yet: run {plan.command('embed')}"
        )
    base, notes, comparisons = Cache(plan.cache, record), [], []
    loaders = Loaders(plan.cache, plan.source, lambda: _load(plan))
    extra = MoreSets(beyond, list(plan.prompts), plan.cache, loaders, plan.progress)
    kinds = list(dict.fromkeys(READS[name] for name in heads if name in READS))
    settings = Settings(
        plan.dataset.name,
        plan.prompts,
        tuple(heads),
        choose_by,
        plan.seed,
        plan.train_per_label,
        plan.test_per_label,
        plan.keep_leaks,
    )
    for selection in selections:
        _require_embedded(plan, base, selection)
        finetuned, more = _finetuned_caches(plan, base, selection)
        features, also = read_features(
            plan.dataset, selection.rows(), kinds, plan.cache, partial(plan.progress, "Reading")
        )
        caches = [base, *_ready_blocks(plan, base, selection), *finetuned, *features]
        sets = extra.of(plan.dataset, selection, caches, plan.test_per_label, plan.keep_leaks)
        comparisons.append(walk(selection, caches, replace(settings, seed=selection.seed), sets))
        kept_heads.save(
            plan.results / kept_heads.FOLDER, comparisons[-1], selection, [base, *finetuned], plan.source, plan.prompts
        )
        notes += [*more, *also, *comparisons[-1].notes()]
    notes += [*extra.notes(), *audit.lines(comparisons, selections)]
    compared = Compared(comparisons, selections, notes)
    damaged = tables.store(plan.results, compared.table, compared.predictions)
    kept_heads.remember_last(plan.results / kept_heads.FOLDER, comparisons)
    run_records.note(plan.results, compared.table, _how(plan))
    return Compared(comparisons, selections, list(dict.fromkeys([*notes, *damaged])))


def _how(plan: Plan) -> dict[str, object]:
    """What it takes to run a comparison of this plan again, and to find its images and vectors."""
    return {
        "command": plan.typed,
        "asked": plan.asked,
        "data": plan.data,
        "cache": str(plan.cache.absolute()),
        "prompts": {label: list(texts) for label, texts in plan.prompts.items()},
        "precision": plan.source.precision,
    }


def _require_embedded(plan: Plan, cache: Cache, selection: Selection) -> None:
    missing = cache.missing_images(selection.rows()["sha256"].to_list())
    prompts = cache.missing_prompts(plan.texts())
    if missing or prompts:
        what = f"{len(missing)} images and {len(prompts)} prompts"
        raise MissingEmbeddings(f"{what} are not embedded yet. Run {plan.command('embed')}")


def _finetuned_caches(plan: Plan, base: Cache, selection: Selection) -> tuple[list[Cache], list[str]]:
    """The encoders that were fine-tuned on exactly this training set and are fully embedded; what is missing."""
    records = find_encoders(
        plan.cache,
        kind="finetuned",
        base_identity=base.record["identity"],
        held_out=selection.held_out,
        train_sha256=selection.train_sha256(),
        seed=selection.seed,
    )
    caches = [Cache(plan.cache, record) for record in records]
    keys = selection.rows()["sha256"].to_list()
    ready = [c for c in caches if not c.missing_images(keys) and not c.missing_prompts(plan.texts())]
    if ready:
        return ready, []
    without = "" if selection.held_out == "none" else f" without {selection.held_out}"
    note = f"No encoder is fine-tuned{without} on these images"
    return [], [f"{note}: {plan.command('finetune')} adds its rows."]
