"""`python -m benchmarks memory`: peak memory of embedding any number of small images, and of reading their vectors."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

STAGES = ("embed", "embed again", "read")


@click.command()
@click.option("--counts", default="100000,1000000", show_default=True, help="How many images.")
@click.option("--model", type=click.Choice(["projection", "nano"]), default="nano", show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the figures here.")
def memory(counts: str, model: str, out: Path | None) -> None:
    """Run the whole of `embed --full` on N generated images, again on the full cache, then read all vectors.

    Each stage is a process of its own, as a command is. `projection` is nano's process with a model that costs nothing.
    """
    figures = []
    for count in map(int, counts.split(",")):
        with tempfile.TemporaryDirectory() as place:
            for stage in STAGES:
                words = [sys.executable, "-m", "benchmarks", "memory-once", stage, str(count), model, place]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                figures.append(json.loads(done.stdout))
                click.echo(json.dumps(figures[-1]))
    if out:
        out.write_text(json.dumps(figures, indent=1))


@click.command("memory-once", hidden=True)
@click.argument("stage")
@click.argument("count", type=int)
@click.argument("model")
@click.argument("place", type=click.Path(path_type=Path))
def memory_once(stage: str, count: int, model: str, place: Path) -> None:
    """One stage, in this process: `embed` fills the cache in `place`, `read` reads it whole."""
    plan = _plan(count, model, place)
    begun = time.perf_counter()
    facts = _read(plan, place) if stage == "read" else _embed(plan)
    seconds = time.perf_counter() - begun
    click.echo(json.dumps({"stage": stage, "model": model, "images": count, "peak_mb": peak(), **facts, "s": seconds}))


def _plan(count: int, model: str, place: Path) -> Any:
    from benchmarks.generated import GeneratedEncoder, generated
    from toolkit.data.labels import Labels
    from toolkit.encoders import openclip
    from toolkit.pipeline import plan

    if model == "projection":
        plan.load = _with_the_libraries(GeneratedEncoder)  # type: ignore[attr-defined]
        source = openclip.Source("projection", "none")
    else:
        source = openclip.source("nano", device="cpu")
    prompts = {"FAKE": ["This is a synthetic image."], "REAL": ["This is a real image."]}
    every: dict[str, Any] = {"split": ("none",), "train_per_label": None, "test_per_label": None}
    every |= {"cache": place / "cache", "results": place / "results", "progress": _show}
    return plan.Plan(generated(count), source, Labels.of([*prompts]), prompts, **every)


def _with_the_libraries(make: Any) -> Any:
    def load(_: Any) -> Any:
        import open_clip  # noqa: F401  (a process that embeds has it and torch, so they belong to the base)

        return make()

    return load


def _embed(plan: Any) -> dict[str, Any]:
    from toolkit.pipeline.embed import embed

    done = embed(plan)
    return {"embedded": done.embedded, "cached": done.cached}


def _read(plan: Any, place: Path) -> dict[str, Any]:
    """What `compare` reads, at once: the split and every vector; and the bare files as a yardstick."""
    files = [path for path in (place / "cache").rglob("*.h5")]
    forget(files)
    begun = time.perf_counter()
    for path in files:
        path.read_bytes()
    bare = time.perf_counter() - begun
    (split,) = plan.splits(plan.contents())
    keys, cache = split.rows()["sha256"], plan.base()
    forget(files)
    before, begun = peak(), time.perf_counter()
    matrix = cache.read_images(keys.to_list())
    seconds = time.perf_counter() - begun
    return {"bare_read_s": bare, "read_s": seconds, "peak_before_mb": before, "matrix_mb": matrix.nbytes >> 20}


def forget(files: list[Path]) -> None:
    """Drop the files from the system's memory, so that the disk is read."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _show(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{stage} {done:,} of {total:,}, peak {peak()} MB", end="", file=sys.stderr)


def peak() -> int:
    """The most memory this process has held, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1 << 20 if sys.platform == "darwin" else 1 << 10))
