"""`embedding`: from image files to the closed cache, against the bare forward pass and a plain open_clip loop."""

import io
import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.turns import Goal, in_turns, on_device, report, rounds_and_json, settle

SIDE_BY_SIDE = "bare, side by side"
WITH_BLOCKS = "toolkit, with blocks"
SIZES = {"small": ((32, 32), 1000, 0.97), "large": ((1024, 768), 300, 0.93)}


@click.command()
@click.option("--images", "kind", type=click.Choice([*SIZES, "data"]), default="small", show_default=True)
@click.option("--model", default="ViT-B-32", show_default=True, help="ViT-B-32 has random weights; nano its own.")
@click.option("--data", help="With --images data: the images, as cli.py takes them.")
@click.option("--count", type=int, help="How many images.  [default: small 1000, large 300, data all]")
@on_device
@rounds_and_json
def embedding(
    kind: str,
    model: str,
    data: str | None,
    count: int | None,
    device: str,
    precision: str,
    rounds: int,
    out: Path | None,
) -> None:
    """Embed images end to end. Goals: 0.97 of the bare forward pass on small ones, 0.93 on large ones, 0.90 of nano,
    and 0.95 of that pass with batches side by side as the toolkit runs them. With the blocks of the image tower, at
    most 1.1 times the time without."""
    from toolkit.data.sources import open_data

    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        if kind != "data":
            size, usual, _ = SIZES[kind]
            data = str(write_photographs(home / "images", count or usual, size))
        assert data is not None, "--images data needs --data"
        compared(open_data(data), made(model, home, device, precision), home, (kind, count), (rounds, out))


def compared(dataset: Any, encoder: Any, home: Path, images: tuple[str, int | None], how: tuple[int, Any]) -> None:
    """Run the five ways in turns, check that their vectors agree, and report."""
    import torch

    from toolkit.cache.embedding import embed_images
    from toolkit.cache.store import Cache
    from toolkit.data.manifest import hash_rows
    from toolkit.encoders.openclip import arithmetic
    from toolkit.pipeline.embed import filled_together

    rows = dataset.rows.head(images[1] or len(dataset.rows))
    tensors = torch.stack(
        [encoder_input(encoder, dataset.read(path)) for path in rows["path"].head(encoder.batch_size)]
    )
    caches: list[Cache] = []
    plain: list[np.ndarray] = []
    numbers = itertools.count()

    def forward(start: int) -> None:
        with torch.inference_mode(), arithmetic(encoder.device, encoder.source.precision):
            encoder.model.encode_image(tensors[: min(encoder.batch_size, len(rows) - start)])

    starts = range(0, len(rows), encoder.batch_size)

    def bare() -> None:
        with torch.inference_mode(), arithmetic(encoder.device, encoder.source.precision):
            for start in starts:
                encoder.model.encode_image(tensors[: min(encoder.batch_size, len(rows) - start)])
            settle(encoder.device)

    def bare_side_by_side() -> None:
        with encoder.side_by_side() as (_, threads):
            list(threads.map(forward, starts))
        settle(encoder.device)

    def toolkit() -> None:
        caches.append(Cache(home / f"cache{len(caches)}", encoder.record))
        embed_images(dataset, hash_rows(dataset, rows), lambda: encoder, caches[-1])

    def with_blocks() -> None:
        place = Cache(home / f"with-blocks{next(numbers)}", encoder.record)
        embed_images(dataset, hash_rows(dataset, rows), *filled_together(place, lambda: encoder, "blocks"))

    def plain_loop() -> None:
        plain[:] = [plainly(dataset, rows["path"].to_list(), encoder)]

    ways = {"bare forward pass": bare, SIDE_BY_SIDE: bare_side_by_side, "toolkit": toolkit, WITH_BLOCKS: with_blocks}
    ways["plain open_clip loop"] = plain_loop
    timings = in_turns(ways, how[0])
    keys = hash_rows(dataset, rows)["sha256"].to_list()
    bare_seconds, goal = timings["bare forward pass"].median(), SIZES.get(images[0], (None, None, 0.90))[2]
    bare_cpu = timings["bare forward pass"].median("cpu")
    goals = [
        Goal("toolkit / bare", bare_seconds / timings["toolkit"].median(), at_least=goal),
        Goal("toolkit / bare, processor s", bare_cpu / timings["toolkit"].median("cpu"), at_least=goal),
        Goal(
            "toolkit / bare, side by side", timings[SIDE_BY_SIDE].median() / timings["toolkit"].median(), at_least=0.95
        ),
        Goal("with blocks / without", timings[WITH_BLOCKS].median() / timings["toolkit"].median(), at_most=1.1),
        Goal("plain loop / bare", bare_seconds / timings["plain open_clip loop"].median(), at_least=0),
        Goal("least cosine to the plain loop", least_cosine(caches[-1].read_images(keys), plain[0]), at_least=0.9999),
    ]
    size = f"{len(rows):,} images ({images[0]})"
    where = f"{encoder.device} {encoder.source.precision}"
    report(f"Embedding {size}, {encoder.source.model}, {where}", timings, goals, len(rows), how[1])


def plainly(dataset: Any, paths: list[str], encoder: Any) -> np.ndarray:
    """What a user would write: a DataLoader over files, open_clip's preprocessing, encode_image -> `[N, D]`."""
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from toolkit.encoders.openclip import arithmetic

    preprocess = image_transform_v2(PreprocessCfg(**encoder.preprocessing), is_train=False)
    readers = 0 if encoder.device == "cpu" else min(8, os.cpu_count() or 1)

    class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> Any:
            return preprocess(Image.open(io.BytesIO(dataset.read(paths[number]))))

    vectors = []
    with torch.inference_mode(), arithmetic(encoder.device, encoder.source.precision):
        for batch in torch.utils.data.DataLoader(Files(), batch_size=encoder.batch_size, num_workers=readers):
            vectors.append(encoder.model.encode_image(batch.to(encoder.device)))
    return np.asarray(torch.cat(vectors).float().cpu().numpy())


def encoder_input(encoder: Any, data: bytes) -> Any:
    """One image as the model takes it: `[3, H, W]` float32."""
    return encoder.pixels_to_input(encoder.prepare(data)[None])[0]


def least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The least cosine between the rows of two matrices."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / lengths).min())


def made(model: str, home: Path, device: str = "cpu", precision: str = "fp32") -> Any:
    """nano with its own weights, or another of open_clip's with random ones, as an encoder of the toolkit's."""
    from toolkit.encoders import openclip

    weights = None if model == "nano" else str(random_weights(model, home))
    return openclip.load(openclip.source(model, weights, precision, device))


def random_weights(model: str, home: Path) -> Path:
    """Weights as open_clip draws them with seed 0, in a file."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = open_clip.create_model(model, pretrained=None, load_weights=False).state_dict()
    file = home / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    return file


def write_photographs(root: Path, count: int, size: tuple[int, int]) -> Path:
    """`count` JPEG files of `size` (width, height) in folders as the toolkit reads them: crops of a photograph."""
    from toolkit.data.sources.sample import PHOTOGRAPHS, photograph

    whole = Image.fromarray(photograph(*PHOTOGRAPHS["coffee"]))
    rng = np.random.default_rng(0)
    for number in range(count):
        left, top = rng.integers(0, (whole.width // 3, whole.height // 3))
        crop = whole.crop((left, top, left + 2 * whole.width // 3, top + 2 * whole.height // 3))
        path = root / ("train/REAL" if number % 2 else "train/FAKE") / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
    return root
