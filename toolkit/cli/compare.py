"""`compare`: every head on every encoder in the cache, as one table."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.declare import A_PATH, option
from toolkit.cli.group import Command
from toolkit.cli.options import as_json, beyond_options, head_options, margin_option, plan_options
from toolkit.cli.output import bars, print_json, print_table, say
from toolkit.cli.plans import beyond_of, heads_of, planned

if TYPE_CHECKING:
    import polars as pl

    from toolkit.pipeline.plan import Plan


@click.command(cls=Command, epilog="Example: python cli.py compare --split all --heads logreg,knn")
@plan_options
@head_options
@margin_option
@beyond_options
@option(
    "--gate",
    type=A_PATH,
    metavar="OLD_RESULTS",
    help="Set the rows against earlier results (a folder or its predictions.parquet), on the same images; exit code 1 "
    "where one got worse beyond --margin.",
)
@as_json
def compare(heads: str, choose_by: str, gate: Path | None, as_json: bool, **chosen: Any) -> None:
    """Score every head on every encoder in the cache, on base and novel images, and write the results."""
    from toolkit.pipeline.compare import compare_all
    from toolkit.results.tables import read_predictions

    old = read_predictions(gate) if gate else None  # before the work: it may be the folder that is written to

    names, plans = heads_of(heads), planned(chosen, as_json)
    beyond = beyond_of(chosen, plans[0].labels, as_json)
    with bars() as progress:
        done = compare_all([replace(plan, progress=progress) for plan in plans], names, choose_by, beyond)
    show_compared(done, plans[0], as_json)
    if old is not None:
        _pass_gate(done.predictions, old, plans[0].margin, as_json)


def _pass_gate(new: "pl.DataFrame", old: "pl.DataFrame", margin: float, as_json: bool) -> None:
    """Print what changed; leave with exit code 1 where a row got worse beyond the margin."""
    from toolkit.cli.changes import print_changes, verdict
    from toolkit.results.against import against

    found = against(new, old)
    if not as_json:
        print_changes(found)
    for line in (*found.notes(), verdict(found, margin)):
        say(line, as_json)
    if found.worse(margin):
        click.get_current_context().exit(1)


def show_compared(done: Any, plan: "Plan", as_json: bool) -> None:
    """Print the tables, the comparison of encoders, the notes, and where the files are."""
    if as_json:
        print_json(done.table.to_dicts())
        return
    from toolkit.cli.tables import encoders, equalised, tables

    for table in tables(done.table, done.predictions):
        print_table(table)
    if side_by_side := encoders(done.table, done.predictions):
        print_table(side_by_side)
    if footing := equalised(done.table, plan):
        print_table(footing)
    for note in done.notes:
        click.echo(note)
    click.echo(f"Written: {plan.results / 'results.xlsx'} (also .csv, .parquet) and predictions beside it.")
