"""`cache list`, `cache verify`, `cache remove`: look after the cache."""

import sys
from pathlib import Path

import click

from toolkit.cli.group import Commands
from toolkit.cli.options import as_json, place_options
from toolkit.cli.output import print_facts, print_json


@click.group("cache", cls=Commands)
def cache_group() -> None:
    """Look after the embedding cache."""


@cache_group.command("list", epilog="Example: python cli.py cache list --json")
@place_options
@as_json
def cache_list(cache: Path, results: Path, as_json: bool) -> None:
    """Show the encoders in the cache: rows, size, age."""
    from toolkit.cache.administration import list_encoders

    found = list_encoders(cache)
    print_json(found) if as_json else print_facts(found, f"Nothing is embedded in {cache} yet.")


@cache_group.command("verify", epilog="Example: python cli.py cache verify")
@place_options
@as_json
def cache_verify(cache: Path, results: Path, as_json: bool) -> None:
    """Check every file in the cache against its checksum. Exit code 1 if one is damaged."""
    from toolkit.cache.administration import verify

    found = verify(cache)
    damaged = [file for file in found if file["state"] != "whole"]
    if as_json:
        print_json(found)
    else:
        click.echo(f"{len(found)} files checked, {len(damaged)} damaged.")
        click.echo(
            "".join(f"  {file['path']}: the next embed or finetune makes it anew\n" for file in damaged), nl=False
        )
    if damaged:
        sys.exit(1)


@cache_group.command("remove", epilog="Example: python cli.py cache remove e24bfa2d")
@click.argument("encoder")
@place_options
@as_json
def cache_remove(encoder: str, cache: Path, results: Path, as_json: bool) -> None:
    """Delete an encoder by the start of its identity or its folder: its embeddings, and weights fine-tuned here."""
    from toolkit.cache.administration import remove

    removed = remove(cache, encoder)
    print_json(removed) if as_json else click.echo("".join(f"Removed {name}\n" for name in removed), nl=False)
