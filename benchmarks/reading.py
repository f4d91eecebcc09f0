"""`reading`: how many small images a second are read, hashed and decoded, without a model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.turns import Goal, in_turns, report, rounds_and_json
from toolkit.encoders.record import EncoderRecord

ALONE = "hash, read again and decode"


class NoModel:
    """Decodes, and embeds every image as a zero."""

    batch_size = 64
    record = EncoderRecord("none", "none", "none", dimension=1)

    def prepare(self, data: bytes) -> np.ndarray:
        from toolkit.data.images import decode

        return np.asarray(decode(data))

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        return np.zeros((len(pixels), 1), np.float32)

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(prompts), 1), np.float32)


@click.command()
@click.option("--data", required=True, help="The images, as cli.py takes them.")
@rounds_and_json
def reading(data: str, rounds: int, out: Path | None) -> None:
    """Hash every image, read it again and decode it. Goal: 10,000 images a second. And as embedding does it."""
    from toolkit.cache.embedding import embed_images
    from toolkit.cache.store import Cache
    from toolkit.data.images import decode
    from toolkit.data.manifest import hash_rows
    from toolkit.data.sources import open_data

    dataset = open_data(data)
    with tempfile.TemporaryDirectory() as place:
        caches: list[Any] = []

        def alone() -> None:
            for path in hash_rows(dataset, dataset.rows)["path"]:
                np.asarray(decode(dataset.read(path)))

        def everything() -> None:
            caches.append(Cache(Path(place) / str(len(caches)), NoModel.record))
            embed_images(dataset, hash_rows(dataset, dataset.rows), NoModel, caches[-1])

        ways = {ALONE: alone, "hash, then embed into a cache without a model": everything}
        timings = in_turns(ways, rounds)
    count = len(dataset.rows)
    rate = count / timings[ALONE].median()
    goals = [Goal("images a second", rate, at_least=10_000)]
    report(f"Reading {count:,} images", timings, goals, count, out)
