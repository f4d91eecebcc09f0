"""`others`: tools that people install to the same end, each from an environment of its own, from command to result."""

import io
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.embedding import made, write_photographs
from benchmarks.feel import command
from benchmarks.turns import Goal, Timing, in_turns, report, rounds_and_json, run_offline

MODEL, BATCH = "ViT-B-32", "64"
TOOLKIT = "toolkit: embed, then the table"
FASTER_CLIP = """
import pathlib, sys, faster_clip
model = faster_clip.ClipModel()
images = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.jpg"))]
for start in range(0, len(images), 64):
    model.encode_image(images[start : start + 64])
"""


@click.command()
@click.option("--env", type=click.Path(path_type=Path, exists=True), required=True, help="Where the environments are.")
@click.option("--count", default=300, show_default=True, help="How many images of 32x32.")
@rounds_and_json
def others(env: Path, count: int, rounds: int, out: Path | None) -> None:
    """ViT-B/32 with the same random weights through clip-benchmark, imgad, clip-retrieval, faster-clip and cli.py.

    `--env` holds a virtual environment of each tool's name with that tool; those that lack are left out, and a tool
    that fails says why. faster-clip reads its own file of weights (in `~/.cache/faster-clip`), which it else fetches.
    """
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        write_photographs(home / "images", count, (32, 32))
        set_aside_for_testing(home / "images")
        made(MODEL, home)
        write_shard(home / "images", home / "shards")
        commands = {name: words for name, words in commands_of(env, home).items() if Path(words[0]).exists()}
        working: dict[str, Callable[[], Any]] = {}
        for name, words in commands.items():
            reason = run_offline(words, home)
            click.echo(f"  {name}: {reason or 'runs'}", err=True)
            if not reason:
                working[name] = partial(run_offline, words, home)
        ways = {TOOLKIT: lambda: ours(home), **working}
        timings = in_turns(ways, rounds)
    goals = [Goal(f"{name} / toolkit", ratio(timings, name), at_least=1.0) for name in working]
    report(f"{count} images, {MODEL}, from command to result", timings, goals, count, out)


def set_aside_for_testing(images: Path) -> None:
    """Every fourth image of a label, for `compare`."""
    for path in sorted(images.glob("train/*/*.jpg")):
        if int(path.stem) % 8 < 2:
            to = images / "test" / path.parent.name / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            path.rename(to)


def ratio(timings: dict[str, Timing], name: str) -> float:
    """How many times the toolkit's seconds."""
    return timings[name].median() / timings[TOOLKIT].median()


def commands_of(env: Path, home: Path) -> dict[str, list[str]]:
    """Each tool's command, as its documentation has it."""
    weights, images, made_here = str(home / "random.safetensors"), str(home / "images"), str(home / "made")
    benchmark = ["eval", "--dataset", "wds/photographs", "--dataset_root", str(home / "shards"), "--no_amp", "--quiet"]
    benchmark += ["--task", "zeroshot_classification", "--model", MODEL, "--pretrained", weights]
    benchmark += ["--batch_size", BATCH, "--num_workers", "0", "--output", f"{made_here}.json"]
    imgad = ["fit", "--extractor-type", "open_clip", "--model", MODEL, "-e", f"pretrained={weights}", "--device", "cpu"]
    imgad += ["--detector", "knn", "--train", images, "--out", f"{made_here}.joblib", "--batch-size", BATCH]
    retrieval = ["inference", "--input_dataset", images, "--output_folder", f"{made_here}-vectors"]
    retrieval += ["--clip_model", f"open_clip:{MODEL}/{weights}", "--use_jit", "False", "--batch_size", BATCH]
    retrieval += ["--enable_text", "False", "--num_prepro_workers", "1", "--enable_wandb", "False"]
    return {
        "clip-benchmark: zero-shot accuracy": [str(env / "clip-benchmark/bin/clip_benchmark"), *benchmark],
        "imgad: a k-NN detector": [str(env / "imgad/bin/imgad"), *imgad],
        "clip-retrieval: vectors": [str(env / "clip-retrieval/bin/clip-retrieval"), *retrieval],
        "faster-clip: vectors": [str(env / "faster-clip/bin/python"), "-c", FASTER_CLIP, images],
    }


def ours(home: Path) -> None:
    """`cli.py embed` and `compare` with a cache that is empty."""
    with tempfile.TemporaryDirectory(dir=home) as place:
        where = ["--cache", f"{place}/cache", "--results", f"{place}/results", "--split", "none", "--full"]
        what = ["--data", str(home / "images"), "--model", MODEL, "--pretrained", str(home / "random.safetensors")]
        for name in ("embed", "compare"):
            command(name, *what, *where)


def write_shard(images: Path, root: Path) -> None:
    """The images as the shard that clip-benchmark reads."""
    (root / "test").mkdir(parents=True)
    with tarfile.open(root / "test/0.tar", "w") as shard:
        for path in sorted(images.rglob("*.jpg")):
            label = b"1" if path.parent.name == "REAL" else b"0"
            for name, data in ((path.name, path.read_bytes()), (f"{path.stem}.cls", label)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    (root / "test/nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("synthetic\nreal")
    (root / "zeroshot_classification_templates.txt").write_text("This is a {c} image.")
