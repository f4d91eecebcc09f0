"""`feel`: how long a user waits for what should be instant, each as a process of its own."""

import hashlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.turns import Goal, in_turns, report, rounds_and_json, run_offline

HELP, COMPARE, EMBED = "cli.py --help", "cli.py compare, warm", "cli.py embed, all cached"
BLOCKS, IMPORTS = "cli.py compare with blocks, warm", "the bare imports"
NEEDED = "import polars, h5py, faiss, sklearn.linear_model"
"""What `compare` cannot do without."""


@click.command()
@click.option("--data", help="The study's images, for compare.  [default: the built-in sample]")
@click.option("--images", default=120_000, show_default=True, help="How many images the second embed finds cached.")
@rounds_and_json
def feel(data: str | None, images: int, rounds: int, out: Path | None) -> None:
    """Goals: help in 0.5 s; in processor seconds the table of the study's size in 1.5 times the bare imports that it
    needs, and a second embed of 120,000 images in 1.5 times that table."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each command compiles the toolkit anew, unlike a user's
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        where = ["--cache", str(home / "cache"), "--results", str(home / "results")]
        study = ["--model", "nano", *where, *(["--data", data] if data else [])]
        command("run", *study, "--features", "last")
        shutil.copytree(home / "cache", home / "blocks")
        blocks = [*study, "--cache", str(home / "blocks")]
        command("embed", *blocks, "--features", "blocks")
        large = ["--model", "nano", "--full", "--split", "none", "--data", str(write_zip(home, images)), *where]
        fill(home, images)
        command("embed", *large)  # lists the zip; what is timed are the later ones
        ways = {
            HELP: lambda: command("--help"),
            IMPORTS: lambda: run([sys.executable, "-c", NEEDED]),
            COMPARE: lambda: command("compare", *study),
            BLOCKS: lambda: command("compare", *blocks, "--heads", "zero-shot,logreg,knn,layer-probes"),
            EMBED: lambda: command("embed", *large),
        }
        timings = in_turns(ways, rounds)
    used = {way: timing.median("cpu") for way, timing in timings.items()}
    pairs = [(COMPARE, IMPORTS), (BLOCKS, IMPORTS), (EMBED, COMPARE)]
    ratios = [Goal(f"{way} / {to}, processor", used[way] / used[to], at_most=1.5) for way, to in pairs]
    goals = [Goal(f"{HELP}, seconds", timings[HELP].median(), at_most=0.5), *ratios]
    report("The feel of it", timings, goals, 1, out)


def command(*words: str) -> None:
    """Run cli.py. Raises ClickException with the last line of what went wrong."""
    run([sys.executable, "cli.py", *words])


def run(words: list[str]) -> None:
    """Run a command. Raises ClickException with the last line of what went wrong."""
    if reason := run_offline(words, Path.cwd()):
        raise click.ClickException(reason)


@cache
def picture(number: int) -> bytes:
    """A JPEG of 32x32 pixels."""
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


def image(number: int) -> bytes:
    """A JPEG that differs from every other by a comment behind its first two bytes."""
    data = picture(number % 500)
    return data[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + data[2:]


def write_zip(home: Path, count: int) -> Path:
    """A zip of `count` images in CIFAKE's layout."""
    path = home / "many.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            split, label = ("test" if number % 12 < 2 else "train"), ("REAL" if number % 2 else "FAKE")
            archive.writestr(f"{split}/{label}/{number // 10:05d} ({number % 9 + 2}).jpg", image(number))
    return path


def fill(home: Path, count: int) -> None:
    """Put a vector of any kind for each image into nano's cache."""
    from toolkit.cache.store import Cache, find_encoders

    record = find_encoders(home / "cache", lambda one: one.name == "base")[0]
    keys = [hashlib.sha256(image(number)).hexdigest() for number in range(count)]
    vectors = np.random.default_rng(0).standard_normal((count, record.dimension)).astype(np.float32)
    stored = Cache(home / "cache", record)
    for start in range(0, count, 1024):
        stored.append_images(keys[start : start + 1024], vectors[start : start + 1024])
