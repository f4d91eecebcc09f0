"""Measured in turns: first each way once, then each again, so that whatever else the machine does meets all of them."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from toolkit.storage import work


@dataclass(frozen=True)
class Timing:
    """One way of doing a piece of work: wall and processor seconds of each run."""

    way: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def median(self, clock: str = "wall") -> float:
        """Seconds."""
        return statistics.median(getattr(self, clock))


@dataclass(frozen=True)
class Goal:
    """`share` is what was measured, `at_least` (or `at_most`) what was aimed at."""

    what: str
    share: float
    at_least: float | None = None
    at_most: float | None = None

    def met(self) -> bool:
        """Whether it was reached."""
        above = self.at_least is None or self.share >= self.at_least
        return above and (self.at_most is None or self.share <= self.at_most)


def in_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Run every way `rounds` times, one after the other in each round."""
    timings = {way: Timing(way) for way in ways}
    for turn in range(rounds):
        for way, run in ways.items():
            wall, cpu = time.perf_counter(), processor_seconds()
            run()
            timings[way].wall.append(time.perf_counter() - wall)
            timings[way].cpu.append(processor_seconds() - cpu)
            click.echo(f"  round {turn + 1}/{rounds}: {way} {timings[way].wall[-1]:.2f} s", err=True)
    return timings


def processor_seconds() -> float:
    """What this process and its ended children have used of all cores."""
    return sum(os.times()[:4])


def run_offline(words: Sequence[str], place: Path) -> str:
    """Run a command without a network -> the last line of what went wrong; nothing where it went well."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(words, cwd=place, env=offline, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip() or "it failed").splitlines()[-1]


def report(title: str, timings: Mapping[str, Timing], goals: list[Goal], count: int, out: Path | None) -> None:
    """One table on standard output, and with `out` the same figures as JSON."""
    from rich.console import Console
    from rich.table import Table

    table = Table("way", "median s", "a second", "processor s", "runs", title=f"{title} ({machine()}, {today()})")
    for timing in timings.values():
        rate = f"{count / timing.median():,.1f}"
        table.add_row(timing.way, f"{timing.median():.3f}", rate, f"{timing.median('cpu'):.3f}", str(len(timing.wall)))
    for goal in goals:
        wanted = f"at least {goal.at_least:g}" if goal.at_least is not None else f"at most {goal.at_most:g}"
        table.add_row(goal.what, f"{goal.share:.3g}", wanted, "reached" if goal.met() else "missed", "")
    Console(width=120).print(table)
    if out:
        facts = {"title": title, "machine": machine(), "date": today(), "count": count}
        measured = {way: asdict(timing) for way, timing in timings.items()}
        reached = [{**asdict(goal), "met": goal.met()} for goal in goals]
        out.write_text(json.dumps({**facts, "timings": measured, "goals": reached}, indent=1))


def machine() -> str:
    """The processor, how many cores there are, and the GPU if torch, once imported, sees one."""
    torch = sys.modules.get("torch")
    card = f", {work.machine('cuda')}" if torch and torch.cuda.is_available() else ""
    return f"{work.machine()}{card}"


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def settle(device: str) -> None:
    """Wait until the device has done what it was given: a GPU works behind the program's back."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def on_device(command: Callable[..., None]) -> Callable[..., None]:
    """The options for where a model runs and in which arithmetic."""
    device = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
    precision = click.option("--precision", default="fp32", show_default=True, help="As --precision of cli.py.")
    return device(precision(command))


def rounds_and_json(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every benchmark takes."""
    rounds = click.option("--rounds", default=5, show_default=True, help="How often each way runs.")
    out = click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the figures here.")
    return rounds(out(command))
