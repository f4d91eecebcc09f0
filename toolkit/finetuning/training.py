"""Fine-tuning: the training loop, for every recipe and for image towers alone."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from toolkit.data.manifest import Dataset
from toolkit.data.split import training_set_sha256
from toolkit.encoders.class_token import encode_image
from toolkit.encoders.openclip import OpenClip, arithmetic, products
from toolkit.encoders.record import EncoderRecord, TrainedOn
from toolkit.errors import CacheError, EncoderError, SelectionError
from toolkit.finetuning import checkpoints, cost
from toolkit.finetuning.augment import augment
from toolkit.finetuning.checkpoints import Checkpoint, CheckpointRecord
from toolkit.finetuning.losses import encode_captions, loss_of
from toolkit.finetuning.recipes import Recipe
from toolkit.finetuning.run import Run, order_in_batches, resume, save, start
from toolkit.storage import distributed

if TYPE_CHECKING:
    import torch

CHEAP, WORTH_SAVING, DISK = 1.0, 20, 2e8
"""An epoch is saved at once if that takes less than `CHEAP` seconds, else when training has gone on for `WORTH_SAVING`
times as long since the last one: a GPU may train an epoch in less time than a disk takes to write weights and
optimizer. Before the first, `DISK` bytes a second are expected."""

log = logging.getLogger(__name__)

StepDone = Callable[[int, int, float], None]


def finetune(
    encoder: OpenClip,
    dataset: Dataset,
    train: pl.DataFrame,
    held_out: str,
    prompts: Mapping[str, Sequence[str]],
    recipe: Recipe,
    cache: Path,
    on_progress: StepDone | None = None,
) -> Checkpoint:
    """Fine-tune `encoder` (in place; both towers, where it has two) on `train` (columns path, label, group, sha256).

    Resumes an interrupted training after its last finished epoch, and returns at once if it was finished. The same seed
    on the same machine gives the same weights. Raises SelectionError if `train` contains an image of `held_out`,
    EncoderError if the loss becomes NaN or infinite.
    """
    recipe = recipe.for_model(encoder.source.model)
    trained_on = describe(encoder.record, train, held_out, prompts, recipe)
    folder = checkpoints.folder_of(cache, trained_on.checkpoint)
    if done := checkpoints.read(folder):
        return done
    run = start(encoder, dataset, train, prompts, recipe)
    losses = resume(run, folder)
    log.info("%s: %d images, epochs %d to %d", folder, len(train), len(losses) + 1, recipe.epochs)
    saved, saving = time.monotonic(), 3 * 4 * run.parameters / DISK  # weights and AdamW's two averages in float32
    while len(losses) < recipe.epochs:
        began = time.perf_counter()
        losses.append(_run_epoch(run, len(losses), on_progress))
        cost.note_epoch(folder, len(losses) - 1, time.perf_counter() - began, run.parameters, encoder.device)
        log.info("epoch %d: mean loss %.4f", len(losses), losses[-1])
        began = time.monotonic()
        worth_it = saving < CHEAP or began - saved >= WORTH_SAVING * saving
        if worth_it and len(losses) < recipe.epochs and distributed.rank() == 0:
            save(run, folder, losses)
            saved = time.monotonic()
            saving = saved - began
    record = CheckpointRecord(trained_on, prompts, tuple(train["sha256"]), tuple(losses), distributed.world())
    return finish(folder, run.weights(), record)


def finish(folder: Path, weights: "Mapping[str, torch.Tensor]", record: CheckpointRecord) -> Checkpoint:
    """Write the checkpoint in the first process -> the checkpoint, in every process."""
    if distributed.rank() == 0:
        checkpoints.finish(folder, weights, record)
    distributed.barrier()
    checkpoint = checkpoints.read(folder)
    if checkpoint is None:
        raise CacheError(f"{folder} is not there: --cache must lie where every process can read and write it.")
    return checkpoint


def describe(
    base: EncoderRecord,
    train: pl.DataFrame,
    held_out: str,
    prompts: Mapping[str, Sequence[str]],
    recipe: Recipe,
) -> TrainedOn:
    """What a training sees, and the key of its checkpoint: a hash over that and the prompts.

    Raises SelectionError if `train` contains an image of `held_out`."""
    categories = sorted(train["group"].drop_nulls().unique().to_list())
    if held_out in categories:
        raise SelectionError(f"The training rows contain images of {held_out!r}, which is held out.")
    recipe = recipe.for_model(base.model)
    facts: dict[str, Any] = {
        "base_identity": base.identity,
        "recipe": recipe.label(base.model) + ("" if base.has_text else " label-vectors"),
        "settings": recipe.settings(),
        "seed": recipe.seed,
        "held_out": held_out,
        "train_categories": categories,
        "train_sha256": training_set_sha256(train),
        "train_rows": len(train),
    }
    texts = {label: list(texts) for label, texts in prompts.items()}
    key = checkpoints.checkpoint_key({**facts, "prompts": texts})
    return TrainedOn(**{**facts, "train_categories": tuple(categories)}, checkpoint=key)


def epochs(
    encoder: OpenClip,
    dataset: Dataset,
    train: pl.DataFrame,
    prompts: Mapping[str, Sequence[str]],
    recipe: Recipe,
    on_progress: StepDone | None = None,
) -> "Iterator[dict[str, torch.Tensor]]":
    """Fine-tune `encoder` in place -> after each epoch, the weights that `finetune` would return. Stores nothing."""
    run = start(encoder, dataset, train, prompts, recipe)
    for epoch in range(recipe.epochs):
        _run_epoch(run, epoch, on_progress)
        yield run.weights()


def _run_epoch(run: Run, epoch: int, on_progress: StepDone | None) -> float:
    """Train on every image once -> the mean loss."""
    run.encoder.model.train()  # with batch norm's statistics frozen, accuracy is 0.61 instead of 0.83
    losses: list[float] = []
    for pixels, captions in _batches(run, epoch):
        seed = [run.recipe.seed, epoch, 3, len(losses)]
        losses.append(_step(run, pixels, *_texts_of_step(run, captions, np.random.default_rng(seed))))
        if on_progress:
            on_progress(epoch * run.steps + len(losses), run.recipe.epochs * run.steps, losses[-1])
    run.encoder.model.eval()
    distributed.average_statistics(run.encoder.model)
    if run.average:
        distributed.average(value for name, value in run.weights().items() if ".running_" in f".{name}")
    return float(np.mean(losses))


def _texts_of_step(
    run: Run, captions: np.ndarray, rng: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The prompts to encode in a step `[U]`, the number of each image's prompt among them `[B]`, and the label number
    of each prompt `[U]`.

    `captions` `[B]` are the numbers of the images' prompts. All prompts are encoded if there are no more than a batch,
    else only those of the batch's images. The loss `prompts` needs one prompt per label as its classes; if labels have
    several, each step draws one of each.
    """
    sizes = [len(texts) for texts in run.prompts.values()]
    every, labels = [text for texts in run.prompts.values() for text in texts], np.repeat(np.arange(len(sizes)), sizes)
    if run.recipe.loss == "prompts":
        used = np.cumsum([0, *sizes[:-1]]) + rng.integers(sizes)
        return [every[number] for number in used], labels[captions], labels[used]
    used = np.arange(len(every)) if len(every) <= run.recipe.batch_size else np.unique(captions)
    return [every[number] for number in used], np.searchsorted(used, captions), labels[used]


def _step(run: Run, pixels: np.ndarray, prompts: Sequence[str], captions: np.ndarray, labels: np.ndarray) -> float:
    """One step of the optimizer on `[B, 3, H, W]` uint8 and the result of `_texts_of_step` -> the loss before it.

    With several processes, `pixels` are this process's part of the batch; everything else is about the whole batch.
    """
    import torch
    import torch.nn.functional as functional

    encoder = run.encoder
    with arithmetic(encoder.device, encoder.source.precision):
        images = functional.normalize(encode_image(encoder.model, encoder.pixels_to_input(pixels)), dim=-1)
        texts = encode_captions(encoder, prompts)
        which, of_label = (torch.from_numpy(numbers).to(encoder.device) for numbers in (captions, labels))
        images = distributed.gather(images.float(), len(captions))
        loss = loss_of(run.recipe.loss, images, texts.float(), which, run.recipe.temperature, of_label)
    run.optimizer.zero_grad(set_to_none=True)
    with products(encoder.source.precision):
        loss.backward()
    distributed.average_gradients(encoder.model)
    run.optimizer.step()
    if run.average:
        run.average.update_parameters(encoder.model)
    value = float(loss.detach())  # not earlier: a GPU would be waited for in the middle of the step
    if not np.isfinite(value):
        raise EncoderError("The loss became NaN or infinite: take a smaller --lr, or --precision fp32.")
    return value


def _batches(run: Run, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each batch: pixels of this process's part, and prompt numbers of the whole. The next batch is read ahead."""
    paths, labels = run.train["path"].to_list(), run.train["label"].to_list()
    captions = _captions(labels, run.prompts, np.random.default_rng([run.recipe.seed, epoch, 1]))

    def pixels(row: int) -> np.ndarray:
        return augment(run.prepared(row), run.recipe.augment, np.random.default_rng([run.recipe.seed, epoch, 2, row]))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers, ThreadPoolExecutor(1) as joiner:
        ahead: list[tuple[np.ndarray, Future[np.ndarray]]] = []
        for batch in order_in_batches(len(paths), epoch, run.recipe):
            images = readers.map(pixels, distributed.part_of_batch(batch))
            ahead.append((batch, joiner.submit(_stacked, images)))
            if len(ahead) == 2:
                rows, stacked = ahead.pop(0)
                yield stacked.result(), captions[rows]
        for rows, stacked in ahead:
            yield stacked.result(), captions[rows]


def _stacked(images: Iterator[np.ndarray]) -> np.ndarray:
    return np.stack(list(images))


def _captions(labels: Sequence[str], prompts: Mapping[str, Sequence[str]], rng: np.random.Generator) -> np.ndarray:
    """The number of each image's prompt `[N]` int64: a random one of its label's."""
    first = dict(zip(prompts, np.cumsum([0, *map(len, prompts.values())]).tolist(), strict=False))
    return np.array([first[label] + int(rng.integers(len(prompts[label]))) for label in labels], dtype=np.int64)
