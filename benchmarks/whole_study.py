"""`whole-study`: embed, fine-tune, embed again and compare three heads, against the same study written by hand."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import polars as pl

from benchmarks.embedding import WITH_BLOCKS, random_weights
from benchmarks.turns import Goal, in_turns, on_device, report, rounds_and_json
from toolkit import Study

HEADS = "zero-shot,logreg,knn"
BY_HAND = str(Path(__file__).parent / "study_by_hand.py")


@click.command()
@click.option("--data", required=True, help="The images, as cli.py takes them; the study's are CIFAKE's.")
@click.option("--model", default="ViT-B-32", show_default=True, help="Its weights are random.")
@click.option("--pretrained", type=click.Path(exists=True), help="A file of weights in place of random ones.")
@click.option("--train-per-label", default=450, show_default=True)
@click.option("--test-per-label", default=100, show_default=True)
@click.option("--script-precision", help="Of the study by hand.  [default: as the toolkit's]")
@click.option("--blocks/--no-blocks", default=True, show_default=True, help="Also with the blocks, as a third way.")
@on_device
@rounds_and_json
def whole_study(
    data: str,
    model: str,
    pretrained: str | None,
    train_per_label: int,
    test_per_label: int,
    script_precision: str | None,
    blocks: bool,
    device: str,
    precision: str,
    rounds: int,
    out: Path | None,
) -> None:
    """The study from image files to the table, from an empty cache, in processes of their own.

    Goals: 1.9 times as fast as by hand; the blocks add at most a tenth; accuracies as by hand, to 0.005.
    """
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        weights = pretrained or str(random_weights(model, home))
        sizes = {"train_per_label": train_per_label, "test_per_label": test_per_label}
        count = unpacked(Study(data, "nano", "cat", cache=home / "none", **sizes), home)
        images = ["--data", data, "--split", "cat", "--train-per-label", str(train_per_label)]
        images += ["--test-per-label", str(test_per_label)]
        encoder = ["--model", model, "--pretrained", weights, "--device", device, "--precision", precision]
        by_hand: list[dict[str, float]] = []
        results: list[Path] = []

        def script() -> None:
            words = [BY_HAND, str(home / "images.csv"), model, weights, device, script_precision or precision]
            by_hand.append(json.loads(said([sys.executable, *words])))

        def toolkit(*more: str) -> Callable[[], None]:
            def run() -> None:
                results.append(home / f"results{len(results)}")
                places = ["--cache", str(results[-1] / "cache"), "--results", str(results[-1])]
                said([sys.executable, "cli.py", "run", *images, *encoder, "--heads", HEADS, *more, *places])

            return run

        ways = {"by hand": script, "toolkit": toolkit("--features", "last")}
        if blocks:
            ways[WITH_BLOCKS] = toolkit("--features", "blocks")
        timings = in_turns(ways, rounds)
        ours = timings["toolkit"].median()
        apart = {name: abs(accuracies(results[0])[name] - value) for name, value in by_hand[-1].items()}
        goals = [
            Goal("by hand / toolkit", timings["by hand"].median() / ours, at_least=1.9),
            *(Goal(f"accuracy apart, {name}", value, at_most=0.005) for name, value in apart.items()),
        ]
        if blocks:
            goals.append(Goal("with blocks / without", timings[WITH_BLOCKS].median() / ours, at_most=1.1))
        report(f"The whole study, {count:,} images, {model}, {device} {precision}", timings, goals, count, out)


def unpacked(study: Study, home: Path) -> int:
    """Write the study's images as files with a table of them, for the script by hand -> how many there are."""
    (split,) = study.plan.largest(study.plan.contents())
    parts = [getattr(split, role).with_columns(role=pl.lit(role)) for role in ("train", "base", "novel")]
    table = pl.concat(parts)
    paths = [home / f"{number}.jpg" for number in range(len(table))]
    for file, path in zip(paths, table["path"], strict=True):
        file.write_bytes(study.plan.dataset.read(path))
    columns = [pl.Series("path", map(str, paths)), "label", pl.col("group").alias("category"), "role"]
    table.select(columns).write_csv(home / "images.csv")
    return len(table)


def accuracies(results: Path) -> dict[str, float]:
    """`base logreg novel` -> the accuracy in a results table."""
    table = pl.read_csv(results / "results.csv")
    return {" ".join((r["encoder"], r["head"], r["test"])): r["accuracy"] for r in table.iter_rows(named=True)}


def said(words: list[str]) -> str:
    """Run a command -> its standard output. Raises ClickException with the end of what it complained of."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(words[:3])} … failed:\n{done.stderr[-2000:]}")
    return done.stdout
