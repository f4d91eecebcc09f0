"""A training run: model, optimizer and weight average, saved between epochs and resumed from there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from toolkit.data.manifest import Dataset
from toolkit.encoders.openclip import OpenClip
from toolkit.errors import CacheError, CannotRead, DataError, EncoderError, ImageError
from toolkit.finetuning import checkpoints
from toolkit.finetuning.averaging import averaged
from toolkit.finetuning.recipes import Recipe
from toolkit.storage.damage import set_aside
from toolkit.storage.records import read_record, write_record

if TYPE_CHECKING:
    import torch
    from torch.optim.swa_utils import AveragedModel

KEPT_PIXELS = 1 << 29
NOT_TRAINED = {
    "fp16": "in fp16 loses the small gradients of fine-tuning (take --precision bf16 or fp32)",
    "int8": "in int8 embeds but does not train (take --precision fp32 or bf16)",
}
"""Why an encoder of this precision cannot be fine-tuned, as the end of a sentence."""


@dataclass(frozen=True)
class Run:
    """What stays the same through a training run."""

    encoder: OpenClip
    optimizer: "torch.optim.Optimizer"
    average: "AveragedModel | None"
    dataset: Dataset
    train: pl.DataFrame
    prompts: Mapping[str, Sequence[str]]
    recipe: Recipe
    prepared: Callable[[int], np.ndarray]
    """The number of a training row -> its image `[3, H, W]` uint8, as the model takes it."""

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return len(order_in_batches(len(self.train), 0, self.recipe))

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.encoder.model.parameters() if parameter.requires_grad)

    def weights(self) -> "dict[str, torch.Tensor]":
        """The current result of the run as a state dict: the averaged weights if there are any, else the model's."""
        return dict((self.average.module if self.average else self.encoder.model).state_dict())


def start(
    encoder: OpenClip, dataset: Dataset, train: pl.DataFrame, prompts: Mapping[str, Sequence[str]], recipe: Recipe
) -> Run:
    """A new run with AdamW. Raises EncoderError for a precision in `NOT_TRAINED`."""
    import torch

    if why := NOT_TRAINED.get(encoder.source.precision):
        raise EncoderError(f"{encoder.source.model} {why}.")
    parameters = list(encoder.model.parameters())
    assert recipe.learning_rate is not None
    fused = encoder.device in ("cpu", "cuda")  # one pass over the weights per step, instead of one per operation
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused)
    average = averaged(encoder.model, recipe.average)
    return Run(encoder, optimizer, average, dataset, train, prompts, recipe, preparing(encoder, dataset, train))


def preparing(encoder: OpenClip, dataset: Dataset, train: pl.DataFrame) -> Callable[[int], np.ndarray]:
    """Reads and prepares an image of `train`; the last `KEPT_PIXELS` bytes of them are kept for the next epoch. Raises
    DataError for one that is gone, or no longer what the training set says."""
    images = train.select("path", "sha256").rows()

    @lru_cache(KEPT_PIXELS // (3 * math.prod(encoder.image_size)))
    def prepared(row: int) -> np.ndarray:
        path, key = images[row]
        try:
            return encoder.prepare(dataset.read_hashed(path, key))
        except ImageError as error:
            raise DataError(f"Cannot train on {path}: {error}. Run it again, which reads the images anew.") from error

    return prepared


def order_in_batches(rows: int, epoch: int, recipe: Recipe) -> list[np.ndarray]:
    """Row numbers of each batch. The order depends on seed and epoch only, so a resumed run sees the same batches."""
    order = np.random.default_rng([recipe.seed, epoch]).permutation(rows)
    batches = [order[start : start + recipe.batch_size] for start in range(0, rows, recipe.batch_size)]
    # A batch of one has no negatives for the contrastive loss and no variance for batch norm: leave it out.
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches


def save(run: Run, folder: Path, losses: list[float]) -> None:
    """Save the epoch: weights and optimizer in one file, then a record with its checksum. The last two that
    were saved are kept, so that training can resume from the one before if a file is damaged."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in run.encoder.model.named_parameters()}
    state = {f"weights.{name}": tensor for name, tensor in run.encoder.model.state_dict().items()}
    for parameter, fields in run.optimizer.state.items():
        state.update({f"optimizer.{names[parameter]}.{field}": value for field, value in fields.items()})
    if run.average:
        state.update({f"average.{name}": tensor for name, tensor in run.weights().items()})
    path = folder / f"epoch-{len(losses)}.safetensors"
    digest = checkpoints.write_tensors(path, state)
    write_record(path.with_suffix(".json"), {"sha256": digest, "losses": losses})
    saved = sorted(folder.glob("epoch-*.json"), key=lambda record: int(record.stem.removeprefix("epoch-")))
    for record in saved[:-2]:
        for file in (record, record.with_suffix(".safetensors")):
            file.unlink(missing_ok=True)


def resume(run: Run, folder: Path) -> list[float]:
    """Load weights and optimizer of the newest undamaged epoch -> the losses of the finished epochs."""
    import torch

    for epoch in range(run.recipe.epochs - 1, 0, -1):
        record = folder / f"epoch-{epoch}.json"
        if not record.exists():
            continue
        weights_file, damaged = record.with_suffix(".safetensors"), record
        try:
            facts = read_record(record)
            damaged = weights_file
            state = checkpoints.read_tensors(weights_file, facts["sha256"])
        except CannotRead:
            raise
        except (CacheError, EncoderError):
            set_aside(damaged, "training resumes from an earlier epoch")
            record.unlink(missing_ok=True)
            continue
        weights = {name.removeprefix("weights."): t for name, t in state.items() if name.startswith("weights.")}
        run.encoder.model.load_state_dict(weights)
        if run.average:
            run.average.n_averaged.fill_(1 + epoch * run.steps)
            run.average.module.load_state_dict({name: state[f"average.{name}"] for name in weights})
        for name, parameter in run.encoder.model.named_parameters():
            prefix = f"optimizer.{name}."
            fields = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if fields:
                # It counts steps where it computes: on a GPU only the fused optimizer does so.
                counter_at = parameter.device if run.optimizer.defaults["fused"] else "cpu"
                step = {"step": fields.pop("step").to(counter_at)}
                # The fused optimizer needs the memory layout of the weights, some of which are channels-last.
                laid_out = {key: torch.empty_like(parameter).copy_(value) for key, value in fields.items()}
                run.optimizer.state[parameter] = step | laid_out
        return list(facts["losses"])
    return []
