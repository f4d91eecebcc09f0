"""What a fine-tuning took, in `cost.json` beside the checkpoint; checkpoints of earlier versions have none."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from toolkit.errors import CacheError
from toolkit.finetuning.checkpoints import WEIGHTS
from toolkit.storage import distributed
from toolkit.storage.records import as_plain, of_plain, read_record, write_record
from toolkit.storage.work import machine

COST = "cost.json"


@dataclass(frozen=True)
class TrainingCost:
    """Wall seconds of each epoch, those of `choosing` the settings before (0 where the recipe sets them), the number of
    `parameters` that were trained, and the machine.

    A time is None if it was not measured, as where a training began under an earlier version of the toolkit."""

    VERSION: ClassVar[int] = 1

    epochs: tuple[float | None, ...] = ()
    parameters: int | None = None
    on: str = ""
    choosing: float | None = 0.0

    @property
    def seconds(self) -> float | None:
        """Choosing and all epochs; None if a part of it was not measured."""
        parts = [*self.epochs, self.choosing]
        known = [part for part in parts if part is not None]
        return sum(known) if self.epochs and len(known) == len(parts) else None


def read(folder: Path) -> TrainingCost | None:
    """What the training of the checkpoint in `folder` took; None if that was not measured, or is damaged."""
    with suppress(CacheError):
        return of_plain(TrainingCost, read_record(folder / COST), f"the cost of the checkpoint {folder.name}")
    return None


def write(folder: Path, cost: TrainingCost | None) -> None:
    """Write the record, in the first of several processes; nothing for None."""
    if cost and distributed.rank() == 0:
        write_record(folder / COST, as_plain(cost))


def note_epoch(folder: Path, epoch: int, seconds: float, parameters: int, device: str) -> None:
    """Add an epoch (from 0) to the record; an epoch that was trained again replaces the earlier one."""
    earlier: Sequence[float | None] = (known := read(folder)) and known.epochs or ()
    epochs = [*earlier[:epoch], *[None] * (epoch - len(earlier)), seconds]
    write(folder, TrainingCost(tuple(epochs), parameters, machine(device, distributed.world())))


def note_choosing(folder: Path, last: Path, parts: Sequence[float | None]) -> None:
    """Write the record of a training whose settings were chosen first: that of the `last` training, and what each part
    of the search took."""
    known = [seconds for seconds in parts if seconds is not None]
    choosing = sum(known) if len(known) == len(parts) else None
    write(folder, (cost := read(last)) and replace(cost, choosing=choosing))


def weights_bytes(folder: Path) -> int | None:
    """The size of a checkpoint's weights file; None if it is gone."""
    path = folder / WEIGHTS
    return path.stat().st_size if path.exists() else None
