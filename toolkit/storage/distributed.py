"""Several processes that run one command together, as started by `torchrun`. In a single process all of this is a
no-op.

The environment tells each process its RANK and the WORLD_SIZE. Each takes every WORLD_SIZE-th piece of the work,
without communication. Data is exchanged only where all processes need the same: by gloo on the CPU, by NCCL for
gradients on GPUs.
"""

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.errors import DistributedError, first_line

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from torch import Tensor

LONGEST_WAIT = timedelta(days=1)
BUCKET_VALUES = 1 << 24
"""The number of gradients summed in one message: 64 MiB as float32."""

T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def world() -> int:
    """The number of processes that run this command together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start() -> None:
    """Connect to the other processes, once. Raises DistributedError if they cannot be reached.

    From then on SIGTERM, which torchrun sends to the others when one fails, acts like Ctrl-C: finished work is stored.
    """
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _readable_errors():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_WAIT)


def barrier() -> None:
    """Wait for all processes. Raises DistributedError if one is gone."""
    everyones(None)


def everyones(mine: T) -> list[T]:
    """Each process's value, by rank, in every process. Raises DistributedError if one is gone."""
    if world() == 1:
        return [mine]
    start()
    import torch.distributed as dist

    found: list[Any] = [None] * world()
    with _readable_errors():
        dist.all_gather_object(found, mine)
    return found


def share(rows: "pl.DataFrame") -> "pl.DataFrame":
    """This process's part of `rows`, which are the same in all processes: every WORLD_SIZE-th, starting at RANK."""
    return rows.gather_every(world(), rank()) if world() > 1 else rows


def put_together(parts: Sequence[Sequence[T]]) -> list[T]:
    """The inverse of `share`: its parts, by rank, in the original order."""
    whole: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def part_of_batch(batch: "np.ndarray") -> "np.ndarray":
    """The row numbers `[ceil(B / world)]` of a batch `[B]` that this process encodes.

    Each process gets the same number, so that one message gathers them. If B is not divisible, the first rows are
    encoded twice, and `gather` cuts the result to B.
    """
    import numpy as np

    size = -(-len(batch) // world())
    return np.resize(batch, size * world())[rank() * size : (rank() + 1) * size]


def gather(features: "Tensor", count: int) -> "Tensor":
    """The features `[B / world, D]` of each process as the whole batch's `[count, D]`, in every process.

    Gradients flow back to the process that encoded a feature, summed over all processes. If each process computes the
    loss of the whole batch and gradients are averaged (`average`), they equal those of a single process.
    """
    if world() == 1:
        return features
    return _gatherer().apply(features)[:count]


def average(tensors: "Iterable[Tensor]") -> None:
    """Replace each tensor by its mean over the processes, which must hold the same shapes in the same order."""
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        with _readable_errors():
            dist.all_reduce(flat)
        flat /= world()
        for tensor, mean in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def average_gradients(model: "torch.nn.Module") -> None:
    """Replace each parameter's gradient by its mean over the processes.

    DistributedDataParallel does not fit: it hooks into one `forward`, while a step here calls the two towers
    separately, the text tower with a shortened context, and recipes freeze parts of either.
    """
    average(p.grad for p in model.parameters() if p.grad is not None)


def average_statistics(model: "torch.nn.Module") -> None:
    """Replace the running statistics of batch norm by their mean over the processes."""
    average(buffer for name, buffer in model.named_buffers() if ".running_" in f".{name}")


def _buckets(tensors: "Iterable[Tensor]") -> "Iterator[list[Tensor]]":
    """Groups of tensors of one type, with up to `BUCKET_VALUES` values, or a single larger tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        values = sum(one.numel() for one in bucket) + tensor.numel()
        if bucket and (values > BUCKET_VALUES or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _gatherer() -> Any:
    """all_gather with a gradient, on any backend (torch's own version needs operations that gloo lacks)."""
    import torch
    import torch.distributed as dist

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, features: "Tensor") -> "Tensor":
            parts = [torch.empty_like(features) for _ in range(world())]
            with _readable_errors():
                dist.all_gather(parts, features.contiguous())
            return torch.cat(parts)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> "Tensor":
            summed = gradients[0].contiguous()
            with _readable_errors():
                dist.all_reduce(summed)
            return summed.chunk(world())[rank()]

    return Gather


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn the RuntimeErrors of torch.distributed for a lost process or network into DistributedError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"Another process of this command is gone or cannot be reached ({first_line(error)}). What was stored is "
            "kept: run the same torchrun command again."
        ) from error
