"""`embed`: images and prompts into the cache."""

from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.group import Command
from toolkit.cli.options import as_json, features_option, option, plan_options, planned
from toolkit.cli.output import print_json, say, watched

if TYPE_CHECKING:
    from toolkit.pipeline.workflow import Plan


@click.command(cls=Command, epilog="Example: python cli.py embed --data data/cifake.zip --model nano")
@plan_options
@option("--strict", is_flag=True, help="Any unreadable image is an error, not only more than 1 % of them.")
@features_option
@as_json
def embed(strict: bool, features: str | None, as_json: bool, **chosen: Any) -> None:
    """Embed images and prompts into the cache; what is there already is not embedded again."""
    from toolkit.pipeline import workflow

    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        done = workflow.embed(plan, strict)
        blocks = workflow.embed_blocks(plan, done) if features else None
    show_embedded(done, plan, as_json)
    show_blocks(blocks, as_json)


def show_embedded(done: Any, plan: "Plan", as_json: bool) -> None:
    """What `embed` did, in a line or two."""
    facts = {"embedded": done.embedded, "cached": done.cached, "prompts": done.prompts, "skipped": len(done.skipped)}
    if as_json:
        print_json({**facts, "leaks": done.leaks, "notes": done.notes, "encoder": done.cache.record["identity"]})
        return
    click.echo(
        f"Embedded {done.embedded:,} images and {done.prompts} prompts; {done.cached:,} images were in the cache."
    )
    if len(done.skipped):
        click.echo(f"{len(done.skipped)} images could not be read: {plan.results / 'skipped.csv'} lists them.")
    if done.leaks:
        kept = "--keep-leaks keeps them"
        click.echo(f"{done.leaks} test images are byte for byte in the training set and were passed over ({kept}).")


def show_blocks(embedded: int | None, as_json: bool) -> None:
    """How many images' blocks were embedded, if any were asked for."""
    if embedded is not None:
        say(
            f"Embedded the blocks of {embedded:,} images; they have no prompts, so zero-shot passes them over.", as_json
        )
