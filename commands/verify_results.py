"""`verify-results`: does every number follow from the predictions?"""

import sys
from pathlib import Path

import click

from commands.group import Command
from commands.options import as_json, place_options
from commands.output import print_json


@click.command("verify-results", cls=Command, epilog="Example: python cli.py verify-results --results results")
@place_options
@as_json
def verify_results(cache: Path, results: Path, as_json: bool) -> None:
    """Recompute every row of the results from the predictions, and say which differ."""
    from toolkit.compare import rescore
    from toolkit.results import read, verify

    differing = verify(results, rescore)
    rows = len(read(results)[0])
    if as_json:
        print_json({"rows": rows, "differing": differing})
    else:
        click.echo(f"{rows} rows recomputed from the predictions: {len(differing)} differ.")
        click.echo("".join(f"  {line}\n" for line in differing), nl=False)
    if differing:
        sys.exit(1)
