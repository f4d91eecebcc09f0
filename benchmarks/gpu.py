"""`gpu`: everything that a GPU changes, in one call and one JSON file."""

import json
import tempfile
from pathlib import Path

import click

from benchmarks.embedding import embedding
from benchmarks.finetuning import finetuning
from benchmarks.turns import machine, today
from benchmarks.whole_study import whole_study


@click.command()
@click.option("--data", required=True, help="The images, as cli.py takes them.")
@click.option("--model", default="ViT-B-32", show_default=True)
@click.option("--count", default=8192, show_default=True, help="How many images to embed.")
@click.option("--steps", default=20, show_default=True, help="Fine-tuning steps.")
@click.option("--train-per-label", default=450, show_default=True, help="Of the whole study.")
@click.option("--test-per-label", default=100, show_default=True, help="Of the whole study.")
@click.option("--device", default="cuda", show_default=True, help="cpu tries the command out.")
@click.option("--precisions", default="fp32,tf32,bf16", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of embedding.")
@click.option("--study-rounds", default=1, show_default=True, help="Of the whole study, which takes minutes.")
@click.option("--json", "out", type=click.Path(path_type=Path), required=True, help="Where the figures go.")
@click.pass_context
def gpu(
    context: click.Context,
    data: str,
    model: str,
    count: int,
    steps: int,
    train_per_label: int,
    test_per_label: int,
    device: str,
    precisions: str,
    rounds: int,
    study_rounds: int,
    out: Path,
) -> None:
    """Bare forward pass, `embed`, a fine-tuning step and the whole study, in each precision.

    Figures are written after each part, so that a run that is cut off keeps what it measured.
    """
    of_embedding = {"kind": "data", "data": data, "count": count, "rounds": rounds}
    of_study = {"data": data, "train_per_label": train_per_label, "test_per_label": test_per_label}
    of_study |= {"rounds": study_rounds}
    found: list[object] = []
    for precision in precisions.split(","):
        for command, options in ((embedding, of_embedding), (finetuning, {"rounds": steps}), (whole_study, of_study)):
            if command is whole_study and precision == "tf32":
                continue  # the script by hand has no such arithmetic
            with tempfile.TemporaryDirectory() as place:
                figures = Path(place) / "figures.json"
                options = {**options, "model": model, "device": device, "precision": precision, "out": figures}
                context.invoke(command, **options)
                found.append(json.loads(figures.read_text()))
            out.write_text(json.dumps({"machine": machine(), "date": today(), "parts": found}, indent=1))
