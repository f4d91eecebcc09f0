"""`report`: the results as one illustrated page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.declare import A_PATH, option, section
from toolkit.cli.group import Command
from toolkit.cli.options import A_MARGIN, as_json
from toolkit.cli.output import print_json

if TYPE_CHECKING:
    from toolkit.pipeline.plan import Plan


@click.command(cls=Command, epilog="Example: python cli.py report --results results")
@section(
    "Data",
    option("--data", metavar="PATH", help="Where the images are.  [default: where compare read them]"),
    option(
        "--study",
        "number",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Which study of the results; 1 is the newest.",
    ),
    option("--held-out", metavar="CATEGORY", help="The held-out value whose details to show.  [default: the hardest]"),
    option(
        "--margin",
        type=A_MARGIN,
        help="The loss of accuracy that still counts as good.  [default: what compare was given]",
    ),
    option(
        "--against",
        type=A_PATH,
        metavar="OLD_RESULTS",
        help="Show what changed since earlier results (a folder or its predictions.parquet), on the same images.",
    ),
)
@section(
    "Places",
    option("--cache", type=A_PATH, help="Embeddings, for the maps of images.  [default: where compare read them]"),
    option("--results", type=A_PATH, default=Path("results"), show_default=True, help="Where the tables are."),
)
@as_json
def report(as_json: bool, results: Path, **chosen: Any) -> None:
    """Draw the results as one page, results/report.html, with its pictures. Loads no model."""
    from toolkit.results.report import page

    show_written(page.write(results, **chosen), as_json)


def draw(plan: "Plan", as_json: bool) -> None:
    """Draw the page at the end of `run`. With JSON, standard output is left to the table."""
    from toolkit.results.report import page

    written = page.write(plan.results, plan.cache, plan.data)
    if not as_json:
        show_written(written, as_json)


def show_written(written: Any, as_json: bool) -> None:
    """Print the verdict in words, what speaks against trusting it, and where the page is."""
    from toolkit.cli.changes import as_facts, print_changes

    if as_json:
        files = [str(path) for path in written.pictures]
        verdict = {"verdict": written.headline, "why": written.lead, "warning": written.warning}
        changes = {"changes": as_facts(written.changes)} if written.changes else {}
        print_json({"page": str(written.page), "pictures": files, **verdict, **changes})
        return
    from toolkit.results.report.verdict import PICKED

    click.echo(f"{written.headline} {written.lead}")
    click.echo(PICKED)
    for line in filter(None, (written.warning, written.study)):
        click.echo(line)
    if written.changes:
        print_changes(written.changes)
        click.echo("".join(f"{line}\n" for line in written.changes.notes()), nl=False)
    click.echo(f"Written: {written.page} (open it in a browser), {len(written.pictures)} files in its pictures/.")
