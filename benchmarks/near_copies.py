"""`near-copies`: three ways to find copies that were planted among the images of a data set, and what each finds."""

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import polars as pl
from PIL import Image

from benchmarks.turns import machine, today
from toolkit.data.images import decode
from toolkit.data.manifest import Dataset, hash_rows

PLANTED = 500
"""Copies of each kind."""
NEIGHBOURS = 10
HAMMING = (0, 4, 8, 10)
"""Of 64 bits."""


def saved(image: Image.Image, quality: int) -> bytes:
    """As JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def shifted(image: Image.Image, x: int, y: int) -> Image.Image:
    """By so many pixels to the right and down; the edge's pixels are repeated."""
    padded = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)), mode="edge")
    return Image.fromarray(padded[1 - y : 1 - y + image.height, 1 - x : 1 - x + image.width])


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG 95": lambda image: saved(image, 95),
    "JPEG 85": lambda image: saved(image, 85),
    "JPEG 75": lambda image: saved(image, 75),
    "a pixel aside": lambda image: saved(shifted(image, 1, 0), 95),
    "a pixel aslant": lambda image: saved(shifted(image, -1, 1), 95),
    "mirrored": lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 85),
}


@click.command("near-copies")
@click.option("--data", required=True, help="The images, as cli.py takes them.")
def near_copies(data: str) -> None:
    """Share of planted copies that each way finds, and of test images that it takes for copies (some are)."""
    from toolkit.data.sources import open_data

    dataset = open_data(data)
    rows = hash_rows(dataset, dataset.rows).drop_nulls("sha256").unique("sha256", maintain_order=True)
    train = rows.filter(pl.col("split") == "train")
    tests = rows.filter((pl.col("split") == "test") & ~pl.col("sha256").is_in(train["sha256"].implode()))
    originals = {
        kind: train.sample(min(PLANTED, len(train)), seed=number)["path"].to_list() for number, kind in enumerate(KINDS)
    }
    planted = {
        f"{kind}/{path}": KINDS[kind](decode(dataset.read(path))) for kind, paths in originals.items() for path in paths
    }
    click.echo(f"{len(train):,} training and {len(tests):,} test images ({machine()}, {today()})")
    for way in (thumbnails, *(hashes(most) for most in HAMMING), embedding):
        start = time.perf_counter()
        found, taken = way(dataset, train, tests, planted)
        shares = ", ".join(f"{kind} {_share(found, kind, originals[kind]):.3f}" for kind in KINDS)
        click.echo(
            f"{way.__name__}: {shares}; takes {taken} test images for copies; {time.perf_counter() - start:.0f} s"
        )


def _share(found: set[str], kind: str, originals: Sequence[str]) -> float:
    return sum(f"{kind}/{path}" in found for path in originals) / len(originals)


def thumbnails(
    dataset: Dataset, train: pl.DataFrame, tests: pl.DataFrame, planted: dict[str, bytes]
) -> tuple[set[str], int]:
    """The toolkit's own -> planted copies found, and how many test images are taken for copies."""
    from toolkit.data.near_copies import NearCopies

    def read(path: str) -> bytes:
        return planted[path] if path in planted else dataset.read(path)

    of_paths = pl.DataFrame({"path": list(planted), "split": "test", "label": "planted", "category": None})
    both = Dataset("planted", "", of_paths.cast(pl.String), read, "folder")
    new = hash_rows(both, both.rows).unique("sha256", maintain_order=True)
    with tempfile.TemporaryDirectory() as cache:
        look = NearCopies(both, Path(cache))
        copies, natural = look.among(train, new) or [], look.among(train, tests) or []
    # An original may have copies of its own in train, and some copies have the original's very bytes.
    same = set(planted) - set(new.filter(~pl.col("sha256").is_in(train["sha256"].implode()))["path"])
    return same | {one.test for one in copies}, len(natural)


def hashes(most: int) -> Callable[..., tuple[set[str], int]]:
    """imagehash's pHash of an image or its mirror image, with up to `most` other bits."""

    def phash(
        dataset: Dataset, train: pl.DataFrame, tests: pl.DataFrame, planted: dict[str, bytes]
    ) -> tuple[set[str], int]:
        import faiss

        old = [decode(dataset.read(path)) for path in train["path"]]
        index = faiss.IndexBinaryFlat(64)
        index.add(_bits(old))
        index.add(_bits([image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in old]))
        places = {path: number for number, path in enumerate(train["path"])}
        distances, rows = index.search(_bits([decode(one) for one in planted.values()]), NEIGHBOURS)
        is_original = rows % len(old) == np.array([[places[path.split("/", 1)[1]]] for path in planted])
        found = ((distances <= most) & is_original).any(1)
        natural = index.search(_bits([decode(dataset.read(path)) for path in tests["path"]]), 1)[0][:, 0] <= most
        return {path for path, one in zip(planted, found, strict=True) if one}, int(natural.sum())

    phash.__name__ = f"pHash, {most} bits"
    return phash


def _bits(images: Sequence[Image.Image]) -> np.ndarray:
    import imagehash

    return np.packbits(np.stack([imagehash.phash(image).hash.ravel() for image in images]), axis=1)


def embedding(
    dataset: Dataset, train: pl.DataFrame, tests: pl.DataFrame, planted: dict[str, bytes]
) -> tuple[set[str], int]:
    """Whether the original is among the ten nearest in nano's embedding, of images and mirror images: before any check
    of pixels, so it takes every test image for a copy."""
    import faiss

    from toolkit.encoders import openclip

    encoder = openclip.load(openclip.source("nano", device="cpu"))

    def embedded(files: Sequence[bytes], mirrored: bool = False) -> np.ndarray:
        parts = []
        for start in range(0, len(files), 256):
            pixels = np.stack([encoder.prepare(one) for one in files[start : start + 256]])
            parts.append(encoder.embed_images(pixels[..., ::-1] if mirrored else pixels))
        vectors = np.concatenate(parts)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    old = [dataset.read(path) for path in train["path"]]
    places = {path: number for number, path in enumerate(train["path"])}
    both = np.concatenate([embedded(old), embedded(old, mirrored=True)])
    rows = faiss.knn(embedded(list(planted.values())), both, NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return {
        path for path, near in zip(planted, rows % len(old), strict=True) if places[path.split("/", 1)[1]] in near
    }, len(tests)
