"""`python -m benchmarks memory`: peak memory of embedding many small images, and of reading their vectors."""

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.comparing import comparing
from benchmarks.embedding import embedding
from benchmarks.feel import feel
from benchmarks.finetuning import finetuning
from benchmarks.reading import reading


@click.group()
def benchmarks() -> None:
    """Each prints one table and, with --json, writes the same figures."""


@benchmarks.command()
@click.option("--counts", default="100000,1000000", show_default=True, help="How many images.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the figures here.")
def memory(counts: str, out: Path | None) -> None:
    """Embed N generated 8x8 images with nano's preprocessing replaced by a projection, in a process of its own."""
    figures = []
    for count in map(int, counts.split(",")):
        with tempfile.TemporaryDirectory() as place:
            for stage in ("embed", "read"):
                words = [sys.executable, "-m", "benchmarks", "memory-once", stage, str(count), place]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                figures.append(json.loads(done.stdout))
                click.echo(json.dumps(figures[-1]))
    if out:
        out.write_text(json.dumps(figures, indent=1))


@benchmarks.command("memory-once", hidden=True)
@click.argument("stage")
@click.argument("count", type=int)
@click.argument("place", type=click.Path(path_type=Path))
def memory_once(stage: str, count: int, place: Path) -> None:
    """One measurement in this process: `embed` fills the cache in `place`, `read` reads it whole."""
    import polars as pl
    import torch  # noqa: F401  (a process that embeds has it, so its memory belongs to the base)

    from benchmarks.generated import GeneratedEncoder, generated
    from toolkit.cache import Cache
    from toolkit.embed import embed_images

    dataset, encoder = generated(count), GeneratedEncoder()
    keys = pl.Series("sha256", [hashlib.sha256(dataset.read(str(n))).hexdigest() for n in range(count)])
    rows = dataset.rows.with_columns(keys)
    del keys
    cache = Cache(place, encoder.record)
    before, begun = peak(), time.perf_counter()
    if stage == "embed":
        embed_images(dataset, rows, lambda: encoder, cache)
    else:
        cache.read_images(rows["sha256"].to_list())
    seconds = time.perf_counter() - begun
    figures = {"stage": stage, "images": count, "seconds": round(seconds, 1), "per_second": round(count / seconds)}
    click.echo(json.dumps({**figures, "peak_mb_before": before, "peak_mb": peak()}))


def peak() -> int:
    """The most memory this process has held, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1 << 20 if sys.platform == "darwin" else 1 << 10))


for command in (embedding, reading, finetuning, comparing, feel):
    benchmarks.add_command(command)

if __name__ == "__main__":
    benchmarks()
