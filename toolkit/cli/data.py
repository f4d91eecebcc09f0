"""`data`, `data download`: which images there are, and CIFAKE from Kaggle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from toolkit.cli.group import Command, Commands
from toolkit.cli.options import as_json, data_option, option, place_options
from toolkit.cli.output import bars, print_json, print_table

LONG = 5_000
"""So many images are read within a moment: no progress to show."""


@click.group("data", cls=Commands, invoke_without_command=True, epilog="Example: python cli.py data --data photos/")
@data_option
@place_options
@as_json
@click.pass_context
def data_group(ctx: click.Context, data: str | None, cache: Path, results: Path, as_json: bool) -> None:
    """List the images at hand: labels, categories, duplicates, leaks.

    Reads every image of --data, or of the standard places and the built-in sample.
    """
    if ctx.invoked_subcommand:
        return
    from toolkit.data.sources import open_data
    from toolkit.evaluation.inventory import at_hand, careful, describe

    found = []
    with bars() as progress:
        for dataset in [open_data(data)] if data else at_hand():
            watch = _watch(progress, dataset.name) if len(dataset.rows) > LONG else None
            found.append({**describe(dataset, watch), "careful": careful(dataset, cache)})
    if as_json:
        print_json(found)
        return
    for one in found:
        _show(one)


def _watch(progress: Callable[[str, int, int], None], name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"Reading {name}", done, total)


def _show(facts: dict[str, Any]) -> None:
    """One data set: a line about it, its counts, and what is odd about it."""
    from rich.table import Table

    click.echo(f"{facts['name']}: {facts['description']}")
    columns = list(dict.fromkeys((one["split"], one["label"]) for one in facts["counts"]))
    counts = {(one["split"], one["label"], one["category"]): one["images"] for one in facts["counts"]}
    table = Table(box=None, header_style="bold")
    table.add_column("Category")
    for split, label in columns:
        table.add_column(f"{split} {label}", justify="right")
    without = [None] if any(category is None for _, _, category in counts) else []
    for category in [*facts["categories"], *without]:
        table.add_row(category or "–", *[f"{counts.get((*column, category), 0):,}" for column in columns])
    sums = [sum(images for (*place, _), images in counts.items() if tuple(place) == column) for column in columns]
    table.add_row("all", *[f"{one:,}" for one in sums], style="bold")
    print_table(table)
    click.echo(_oddities(facts))
    click.echo(f"{facts['careful']}\n" if facts["careful"] else "")


def _oddities(facts: dict[str, Any]) -> str:
    """What is wrong with the data, or that nothing is."""
    meanings = {
        "duplicates": "{} are copies of another one of the same split and label",
        "leaks": "{} of the test set have their bytes in train, too (compare passes them over)",
        "contradictions": "{} bear both labels",
        "unreadable": "{} cannot be read",
    }
    found = [text.format(f"{facts[name]:,} images") for name, text in meanings.items() if facts[name]]
    return ("; ".join(found) or "No image is there twice, none leaks from train to test, all can be read") + "."


@data_group.command("download", cls=Command, epilog="Example: python cli.py data download cifake")
@click.argument("name", type=click.Choice(["cifake"]))
@option("--to", type=click.Path(path_type=Path), default=Path("data/cifake"), show_default=True, help="The new folder.")
@as_json
def download(name: str, to: Path, as_json: bool) -> None:
    """Download CIFAKE (120,000 images, 120 MB) from Kaggle; goes on where it was interrupted.

    Needs Kaggle's client: pip install kagglehub.
    """
    from toolkit.data.download import EXPECTED, download_cifake

    downloaded, images = download_cifake(to), sum(EXPECTED.values())
    if as_json:
        print_json({"folder": str(to), "images": images, "downloaded": downloaded})
    else:
        state = "are" if downloaded else "were already"
        click.echo(f"{images:,} images of CIFAKE {state} in {to}.")
