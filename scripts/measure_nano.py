"""Measure nano: zero-shot accuracy on CIFAR-10's test images, and images a second from decoded pixels.

    python scripts/measure_nano.py CIFAR10_FOLDER

CIFAR10_FOLDER holds `test/<class>/*.jpg`. The prompts are the templates below, averaged, as for any CLIP.
"""

import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from toolkit.encoders import openclip
from toolkit.heads.zero_shot import ZeroShot

TEMPLATES = ["a photo of a {}.", "an image of a {}.", "a picture of the {}."]
BATCH = 64


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def measure(folder: Path) -> None:
    """Print accuracy and speed."""
    files = sorted((folder / "test").glob("*/*.jpg"))
    nano = openclip.load(openclip.source("nano", device="cpu"))
    pixels = np.stack([nano.preprocess(Image.open(file).convert("RGB")) for file in files])
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    nano.embed_images(batches[0])
    begun = time.perf_counter()
    vectors = np.concatenate([nano.embed_images(batch) for batch in batches])
    seconds = time.perf_counter() - begun
    labels = np.array([file.parent.name for file in files])
    prompts = {name: nano.embed_prompts([t.format(name) for t in TEMPLATES]) for name in np.unique(labels)}
    right = ZeroShot(prompts).fit(vectors, labels).predict(vectors) == labels
    click.echo(f"zero-shot accuracy on {len(files):,} test images: {right.mean():.4f}")
    click.echo(f"{len(files) / seconds:,.0f} images/s on the CPU, from decoded pixels")


if __name__ == "__main__":
    measure()
