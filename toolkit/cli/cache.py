"""`cache list`, `cache verify`, `cache remove`, `cache import`, `cache export`: manage the cache."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from toolkit.cli.declare import option
from toolkit.cli.group import Commands
from toolkit.cli.options import as_json, data_option, place_options, reading_options
from toolkit.cli.output import bars, print_facts, print_json
from toolkit.cli.plans import asked, reading_of


@click.group("cache", cls=Commands)
def cache_group() -> None:
    """Manage the embedding cache."""


@cache_group.command("list", epilog="Example: python cli.py cache list --json")
@place_options
@as_json
def cache_list(cache: Path, results: Path, as_json: bool) -> None:
    """Show the encoders in the cache: rows, size, age; and what is kept beside them."""
    from toolkit.cache.administration import count_kept, list_encoders
    from toolkit.errors import counted

    found, beside = list_encoders(cache), count_kept(cache)
    if as_json:
        print_json(found)
        return
    print_facts(found, f"Nothing is embedded in {cache} yet.")
    if beside["bytes"]:
        kept = f"{counted(beside['listings'], 'listing')} of data, {counted(beside['heads'], 'fitted head')}"
        click.echo(f"Also kept: {kept} ({beside['bytes'] / 1e6:.1f} MB).")


@cache_group.command("verify", epilog="Example: python cli.py cache verify")
@place_options
@as_json
def cache_verify(cache: Path, results: Path, as_json: bool) -> None:
    """Check every file in the cache against its checksum. Exit code 1 if one is damaged or cannot be read."""
    from toolkit.cache.administration import verify

    found = verify(cache)
    damaged = [file for file in found if file["state"] != "whole"]
    if as_json:
        print_json(found)
    else:
        click.echo(f"{len(found)} files checked, {len(damaged)} damaged or not readable.")
        for file in damaged:
            then = "it is made again when it is needed" if file["state"] == "damaged" else file["state"]
            click.echo(f"  {file['path']}: {then}")
    if damaged:
        sys.exit(1)


@cache_group.command("remove", epilog="Example: python cli.py cache remove e24bfa2d")
@click.argument("encoder")
@place_options
@as_json
def cache_remove(encoder: str, cache: Path, results: Path, as_json: bool) -> None:
    """Delete an encoder, given by the start of its identity or folder: its embeddings, fine-tuned weights and heads."""
    from toolkit.cache.administration import remove

    removed = remove(cache, encoder)
    print_json(removed) if as_json else click.echo("".join(f"Removed {name}\n" for name in removed), nl=False)


@cache_group.command(
    "import", epilog="Example: python cli.py cache import clip-retrieval/ --name L14 --data photos/ --normalised"
)
@click.argument("vectors", type=click.Path(path_type=Path))
@option("--name", required=True, metavar="NAME", help="What to call the encoder: compare --model NAME finds it.")
@option("--dimension", type=click.IntRange(1), metavar="N", help="How many numbers each vector has; checked.")
@option("--normalised", is_flag=True, help="The vectors were scaled to unit length; checked.")
@data_option
@reading_options
@place_options
@as_json
def cache_import(
    vectors: Path,
    name: str,
    dimension: int | None,
    normalised: bool,
    data: str | None,
    cache: Path,
    results: Path,
    as_json: bool,
    **reading: Any,
) -> None:
    """Import image vectors of another tool as an encoder of its own, to compare heads on them without its model.

    VECTORS is clip-retrieval's output folder, an .npz, a Parquet, or an .npy with a Parquet of the same name beside it.
    Each vector is matched to an image of --data by its path or SHA-256.
    """
    from toolkit.cache.exchange import import_vectors, read_vectors
    from toolkit.data.sources import open_data
    from toolkit.encoders.default_weights import default_tag

    found = read_vectors(vectors)
    dataset = open_data(data, cache=cache, asked=reading_of(reading))
    with bars() as progress:
        done = import_vectors(
            found, dataset, cache, name, normalised, dimension, lambda *count: progress("Reading", *count)
        )
    facts = {
        "identity": done.record.identity,
        "stored": done.stored,
        "present": done.present,
        "problems": done.by_reason(),
        "unproven": done.unproven,
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"{name}: imported {done.stored:,} vectors of {dataset.name}; {done.present:,} were in the cache.")
    for one in done.by_reason():
        click.echo(f"  {one['count']:,} {one['reason']} ({one['example']})")
    click.echo(done.unproven)
    weights = f" --pretrained {done.record.pretrained}" if default_tag(name) else ""  # else open_clip's would be meant
    compare = f"python cli.py compare --model {shlex.quote(name)}{weights} --heads logreg,knn {asked()}".strip()
    click.echo(f"Now compare heads on them: {compare}")


@cache_group.command("export", epilog="Example: python cli.py cache export e24bfa2d vectors.parquet --data photos/")
@click.argument("encoder")
@click.argument("target", type=click.Path(path_type=Path))
@option("--data", metavar="PATH", help="Only the images of this data, with their paths, labels and splits.")
@reading_options
@place_options
@as_json
def cache_export(
    encoder: str, target: Path, data: str | None, cache: Path, results: Path, as_json: bool, **reading: Any
) -> None:
    """Write an encoder's image vectors to TARGET: a .parquet, or an .npy with a Parquet of the same name beside it.

    ENCODER is the start of its identity or folder; python cli.py cache list shows them.
    """
    from toolkit.cache.administration import only_encoder
    from toolkit.cache.exchange import export_vectors
    from toolkit.data.sources import open_data

    if target.suffix not in (".npy", ".parquet"):
        raise click.UsageError(f"{target} is neither a .parquet nor an .npy.")
    found = only_encoder(cache, encoder)
    with bars() as progress:
        dataset = open_data(data, cache=cache, asked=reading_of(reading)) if data else None
        count = export_vectors(found, target, dataset, lambda *done: progress("Reading", *done))
    if as_json:
        print_json({"target": str(target), "images": count, "identity": found.record.identity})
    else:
        click.echo(f"Written: {count:,} vectors of {found.record.model} ({found.record.pretrained}) to {target}.")
