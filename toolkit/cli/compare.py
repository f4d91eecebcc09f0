"""`compare`: every head on every encoder in the cache, as one table."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.group import Command
from toolkit.cli.options import as_json, beyond_options, head_options, plan_options
from toolkit.cli.output import bars, print_json, print_table
from toolkit.cli.plans import beyond_of, heads_of, planned

if TYPE_CHECKING:
    from toolkit.pipeline.plan import Plan


@click.command(cls=Command, epilog="Example: python cli.py compare --split all --heads logreg,knn")
@plan_options
@head_options
@beyond_options
@as_json
def compare(heads: str, choose_by: str, as_json: bool, **chosen: Any) -> None:
    """Score every head on every encoder in the cache, on base and novel images, and write the results."""
    from toolkit.pipeline.compare import compare_all

    names, plans = heads_of(heads), planned(chosen, as_json)
    beyond = beyond_of(chosen, plans[0].labels, as_json)
    with bars() as progress:
        done = compare_all([replace(plan, progress=progress) for plan in plans], names, choose_by, beyond)
    show_compared(done, plans[0], as_json)


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
