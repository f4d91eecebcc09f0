"""Checkpoints: fine-tuned weights, and a record of what they were trained on.

`<cache>/checkpoints/<key>/` contains `weights.safetensors` and `record.json` once training is finished. Until then it
contains, for the last epochs, `epoch-<n>.safetensors` (weights and the optimizer's state) with `epoch-<n>.json`. The
key is a hash over the base encoder, the recipe, the prompts and the training images, so that another training's
checkpoint is never resumed or used by mistake.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from toolkit.encoders.checkpoint_files import LABEL_VECTORS, image_tower
from toolkit.encoders.create import create
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import TrainedOn
from toolkit.encoders.source import Source
from toolkit.errors import CacheError, EncoderError
from toolkit.storage.damage import file_sha256, record_if_whole, set_aside
from toolkit.storage.records import as_plain, of_plain, sweep, write_record

if TYPE_CHECKING:
    import torch

WEIGHTS, RECORD = "weights.safetensors", "record.json"
AGAIN = "finetune trains this encoder again, to the same weights"


@dataclass(frozen=True)
class CheckpointRecord:
    """How a checkpoint's weights were trained.

    `prompts` maps each label to its prompts (for an encoder without text, to itself), `train_keys` are the SHA-256 of
    the training images in order, `losses` the mean loss of each epoch, `processes` the number of processes.
    """

    VERSION: ClassVar[int] = 2

    trained_on: TrainedOn
    prompts: Mapping[str, Sequence[str]]
    train_keys: tuple[str, ...]
    losses: tuple[float, ...] = ()
    processes: int = 1
    weights_file_sha256: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, Any], folder: Path) -> "CheckpointRecord":
        """The record from JSON; version 1, which had all fields at one level, is converted.

        Raises CacheError for missing or unknown fields.
        """
        if "version" not in plain:
            of_training = {field.name for field in fields(TrainedOn)}
            trained = {"choice": None} | {name: value for name, value in plain.items() if name in of_training}
            rest = {name: value for name, value in plain.items() if name not in of_training}
            plain = {"version": cls.VERSION, "processes": 1, **rest, "trained_on": trained}
        return of_plain(cls, plain, f"the checkpoint {folder.name}")


@dataclass(frozen=True)
class Checkpoint:
    """A finished fine-tuning: the folder with its weights, and the record of how they were trained."""

    folder: Path
    record: CheckpointRecord


def checkpoint_key(facts: Mapping[str, Any]) -> str:
    """A hash of 16 hex characters over everything that determines the final weights."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def folder_of(cache: Path, key: str) -> Path:
    """The folder of the checkpoint with this key, whether or not it exists."""
    return cache / "checkpoints" / key


def read(folder: Path) -> Checkpoint | None:
    """The finished checkpoint in `folder`; None if training has not finished, or if one of its files is damaged.

    A damaged file is set aside. Record and weights are only valid together, so training then writes both again. Raises
    CannotRead, and CacheError for an undamaged record of another version.
    """
    if (plain := record_if_whole(folder / RECORD, AGAIN)) is None:
        return None
    if file_sha256(folder / WEIGHTS) != plain.get("weights_file_sha256"):
        _give_up(folder)
        return None
    return Checkpoint(folder, CheckpointRecord.of(plain, folder))


def _give_up(folder: Path) -> None:
    """Set damaged weights aside; without a record it is no finished checkpoint."""
    set_aside(folder / WEIGHTS, AGAIN)
    with suppress(OSError):
        (folder / RECORD).unlink()


def write_tensors(path: Path, tensors: "Mapping[str, torch.Tensor]") -> str:
    """Write a safetensors file under a temporary name, sync it, rename it -> the SHA-256 of its bytes."""
    from safetensors.torch import save_file

    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        digest = str(file_sha256(beside))
        beside.replace(path)
        return digest
    except Exception as error:  # safetensors raises an exception of its own for a full disk
        beside.unlink(missing_ok=True)
        raise CacheError(
            f"Cannot write {path}: {error}. Earlier epochs are kept; make room and run it again."
        ) from error


def read_tensors(path: Path, expected_sha256: str) -> "dict[str, torch.Tensor]":
    """The tensors of a file that `write_tensors` wrote. Raises EncoderError if its checksum differs, and CannotRead."""
    from safetensors.torch import load_file

    if file_sha256(path) != expected_sha256:
        raise EncoderError(f"{path} is missing or damaged: run python cli.py finetune again, which trains it again.")
    return load_file(path)


def finish(folder: Path, tensors: "Mapping[str, torch.Tensor]", record: CheckpointRecord) -> Checkpoint:
    """Write the final weights, then the record that marks the checkpoint as finished; delete the epochs' files."""
    record = replace(record, weights_file_sha256=write_tensors(folder / WEIGHTS, tensors))
    write_record(folder / RECORD, as_plain(record))
    for leftover in folder.glob("epoch-*"):
        leftover.unlink(missing_ok=True)
    sweep(folder)
    return Checkpoint(folder, record)


def weights(checkpoint: Checkpoint) -> "dict[str, torch.Tensor]":
    """The weights of a checkpoint. Damaged ones are set aside, so that training writes them again; then raises
    EncoderError."""
    try:
        return read_tensors(checkpoint.folder / WEIGHTS, checkpoint.record.weights_file_sha256)
    except EncoderError:
        _give_up(checkpoint.folder)
        raise


def load_finetuned(checkpoint: Checkpoint, origin: Source) -> OpenClip:
    """The encoder in a checkpoint, on the device of `origin`. Raises EncoderError if its weights are damaged."""
    tensors = weights(checkpoint)
    model: Any = create(origin, load_weights=False)
    if LABEL_VECTORS in tensors:
        model = image_tower(model)
        model.set_labels(sorted(checkpoint.record.prompts), tensors[LABEL_VECTORS].clone())
    model.load_state_dict(tensors, strict=True)
    return OpenClip(model, origin, checkpoint.record.trained_on)
