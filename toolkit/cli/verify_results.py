"""`verify-results`: recompute every result from the predictions."""

import sys
from pathlib import Path

import click

from toolkit.cli.group import Command
from toolkit.cli.options import as_json, place_options
from toolkit.cli.output import print_json


@click.command("verify-results", cls=Command, epilog="Example: python cli.py verify-results --results results")
@place_options
@as_json
def verify_results(cache: Path, results: Path, as_json: bool) -> None:
    """Recompute every row of the results from the predictions, and list those that differ."""
    from toolkit.results.tables import read, verify

    differing = verify(results)
    rows = len(read(results)[0])
    if as_json:
        print_json({"rows": rows, "differing": differing})
    else:
        click.echo(f"{rows} rows recomputed from the predictions: {len(differing)} differ.")
        click.echo("".join(f"  {line}\n" for line in differing), nl=False)
    if differing:
        sys.exit(1)
