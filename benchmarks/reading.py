"""`reading`: how many small images a second are read, hashed and decoded, without a model."""

from pathlib import Path

import click

from benchmarks.turns import Goal, in_turns, report, rounds_and_json


@click.command()
@click.option("--data", required=True, help="The images, as cli.py takes them.")
@rounds_and_json
def reading(data: str, rounds: int, out: Path | None) -> None:
    """Read, hash and decode every image. Goal: 10,000 images a second."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from toolkit.images import decode
    from toolkit.manifest import hash_rows
    from toolkit.sources import open_data

    dataset = open_data(data)
    paths = dataset.rows["path"].to_list()

    def some(chunk: list[str]) -> int:
        return sum(np.asarray(decode(dataset.read(path))).size for path in chunk)

    def everything() -> None:
        hash_rows(dataset, dataset.rows)
        chunks = [paths[start : start + 16] for start in range(0, len(paths), 16)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            sum(threads.map(some, chunks))

    timings = in_turns(
        {"hash": lambda: hash_rows(dataset, dataset.rows), "hash, read again and decode": everything}, rounds
    )
    rate = len(paths) / timings["hash, read again and decode"].median()
    goals = [Goal("images a second", rate, at_least=10_000)]
    report(f"Reading {len(paths):,} images", timings, goals, len(paths), out)
