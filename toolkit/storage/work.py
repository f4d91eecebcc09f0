"""What work took, kept beside its result: seconds, and on which machine."""

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CPU_FACTS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Work:
    """Wall `seconds` of some work, and the machine that they were measured `on` (`machine`)."""

    seconds: float
    on: str


@cache
def machine(device: str = "cpu", processes: int = 1) -> str:
    """The name of the GPU, or of the processor with the number of cores that this process may use; `4 × …` for several
    processes."""
    one = _gpu() if device == "cuda" else f"{_processor()}, {_cores()} cores"
    return one if processes == 1 else f"{processes} × {one}"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def processor_fact(name: str) -> str:
    """What Linux says of the processor, such as its `model name` or its `flags`; empty where that is not known."""
    lines = CPU_FACTS.read_text().splitlines() if CPU_FACTS.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _processor() -> str:
    return processor_fact("model name") or platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
