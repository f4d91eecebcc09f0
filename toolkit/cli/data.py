"""`data`, `data download`: describe data sets, and download CIFAKE from Kaggle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from toolkit.cli.declare import option
from toolkit.cli.group import Command, Commands
from toolkit.cli.options import as_json, data_option, place_options, reading_options
from toolkit.cli.output import bars, print_json, print_table
from toolkit.cli.plans import reading_of

MOST_VALUES = 12
"""The most values shown for a level; the most frequent ones."""
MOST_COLUMNS = 8
"""More splits and labels than these are not shown side by side."""
LONG = 5_000
"""Up to this many images are read without a progress bar."""


@click.group("data", cls=Commands, invoke_without_command=True, epilog="Example: python cli.py data --data photos/")
@data_option
@reading_options
@place_options
@as_json
def data_group(data: str | None, cache: Path, results: Path, as_json: bool, **reading: Any) -> None:
    """Show how data is read: layout, labels, categories, files not used and why, duplicates, leaks.

    Decodes every image of --data, or of the standard places and the built-in sample.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand:
        return
    from toolkit.data.sources import open_data
    from toolkit.evaluation.inventory import at_hand, careful, describe

    found = []
    with bars() as progress:
        for dataset in [open_data(data, cache=cache, asked=reading_of(reading))] if data else at_hand(cache):
            watch = _watch(progress, dataset.name) if len(dataset.rows) > LONG else None
            found.append({**describe(dataset, watch, cache), "careful": careful(dataset, cache)})
    if as_json:
        print_json(found)
    else:
        for one in found:
            _show(one)
    for one in found:
        if not one["used"]:
            first = one["skipped"][0]
            click.echo(f"Error: none of {one['images']:,} images can be read: {_reason(first)}.", err=True)
            ctx.exit(2)


def _watch(progress: Callable[[str, int, int], None], name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"Reading {name}", done, total)


def _show(facts: dict[str, Any]) -> None:
    """Print a data set: a line about it, how it was read, its counts, and problems."""
    click.echo(f"{facts['name']}: {facts['description']}")
    for note in facts["notes"]:
        click.echo(note)
    _show_layout(facts["layout"])
    _show_counts(facts)
    _show_skipped(facts)
    click.echo(_oddities(facts))
    click.echo(f"{facts['careful']}\n" if facts["careful"] else "")


def _show_layout(layout: list[dict[str, Any]]) -> None:
    """Print the meaning of each folder level or column, with the number of images of each value."""
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("Where", "Meaning", "Images"):
        table.add_column(name)
    for level in layout:
        table.add_row(level["place"], level["meaning"], _values(level["values"]))
    if layout:
        print_table(table)


def _values(counts: dict[str, int]) -> str:
    """`train 24, test 16`, the most frequent first; if all values differ, only their number."""
    if len(counts) > 1 and max(counts.values()) == 1:
        return f"{len(counts):,} different values"
    values = sorted(counts.items(), key=lambda one: -one[1])
    shown = ", ".join(f"{value} {count:,}" for value, count in values[:MOST_VALUES])
    return shown + (f", and {len(values) - MOST_VALUES:,} more" if len(values) > MOST_VALUES else "")


def _show_counts(facts: dict[str, Any]) -> None:
    """Print the number of images of each category, label and split; of many labels without categories, a line each."""
    from rich.table import Table

    columns = list(dict.fromkeys((one["split"], one["label"]) for one in facts["counts"]))
    counts = {(one["split"], one["label"], one["category"]): one["images"] for one in facts["counts"]}
    if not facts["categories"] and len(columns) > MOST_COLUMNS:
        _show_labels(counts)
        return
    table = Table(box=None, header_style="bold")
    table.add_column("Category")
    for split, label in columns:
        table.add_column(f"{split} {label}", justify="right")
    without = [None] if facts["categories"] and any(category is None for _, _, category in counts) else []
    for category in [*facts["categories"], *without]:
        table.add_row(category or "–", *[f"{counts.get((*column, category), 0):,}" for column in columns])
    sums = [sum(images for (*place, _), images in counts.items() if tuple(place) == column) for column in columns]
    table.add_row("all", *[f"{one:,}" for one in sums], style="bold")
    print_table(table)


def _show_labels(counts: dict[tuple[str, str, str | None], int]) -> None:
    """Print a line for each label, with its images of each split."""
    from rich.table import Table

    splits = list(dict.fromkeys(split for split, _, _ in counts))
    table = Table("Label", *splits, box=None, header_style="bold")
    for label in dict.fromkeys(label for _, label, _ in counts):
        table.add_row(label, *[f"{counts.get((split, label, None), 0):,}" for split in splits])
    sums = [sum(images for (of, _, _), images in counts.items() if of == split) for split in splits]
    table.add_row("all", *[f"{one:,}" for one in sums], style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    print_table(table)


def _show_skipped(facts: dict[str, Any]) -> None:
    """Print how many files were found: images used, and the rest by reason."""
    skipped = sum(one["count"] for one in facts["skipped"])
    rest = f" + {skipped:,} not used:" if skipped else ", every one of them decoded."
    click.echo(f"{facts['seen']:,} files seen = {facts['used']:,} images used{rest}")
    for one in facts["skipped"]:
        click.echo(f"  {one['count']:,} {_reason(one)}")


def _reason(one: dict[str, Any]) -> str:
    return f"{one['reason']} ({one['example']}{': ' + one['detail'] if one['detail'] else ''})"


def _oddities(facts: dict[str, Any]) -> str:
    """A line with the problems of the data, or that there are none."""
    meanings = {
        "duplicates": "{} are copies of another one of the same split and label",
        "leaks": "{} of the test set are also in train, byte for byte (compare leaves them out)",
        "contradictions": "{} have more than one label",
    }
    found = [text.format(f"{facts[name]:,} images") for name, text in meanings.items() if facts[name]]
    found += _near_copies(facts)
    return ("; ".join(found) or "No two images have the same bytes, none leaks from train to test") + "."


def _near_copies(facts: dict[str, Any]) -> list[str]:
    if facts["near_copies"] is None:
        return ["near copies were not searched for among so many images"]
    if not facts["near_copies"]:
        return []
    examples = "; ".join(f"{one['test']} of {one['train']}, {one['how']}" for one in facts["near_copy_examples"])
    return [
        f"{facts['near_copies']:,} images of the test set are near copies of one in train ({examples}): compare "
        "--drop-near-copies leaves them out"
    ]


@data_group.command("download", cls=Command, epilog="Example: python cli.py data download cifake")
@click.argument("name", type=click.Choice(["cifake"]))
@option("--to", type=click.Path(path_type=Path), default=Path("data/cifake"), show_default=True, help="The new folder.")
@as_json
def download(name: str, to: Path, as_json: bool) -> None:
    """Download CIFAKE (120,000 images, 120 MB) from Kaggle; resumes an interrupted download.

    Needs Kaggle's client: pip install kagglehub.
    """
    from toolkit.data.download import EXPECTED, download_cifake

    downloaded, images = download_cifake(to), sum(EXPECTED.values())
    if as_json:
        print_json({"folder": str(to), "images": images, "downloaded": downloaded})
    else:
        state = "are" if downloaded else "were already"
        click.echo(f"{images:,} images of CIFAKE {state} in {to}.")
