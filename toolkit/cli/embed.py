"""`embed`: images and prompts into the cache."""

from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.group import Command
from toolkit.cli.options import as_json, features_option, option, plan_options, planned
from toolkit.cli.output import print_json, watched

if TYPE_CHECKING:
    from toolkit.pipeline.plan import Plan


@click.command(cls=Command, epilog="Example: python cli.py embed --data data/cifake.zip --model nano")
@plan_options
@option("--strict", is_flag=True, help="Any unreadable image is an error, not only more than 1 % of them.")
@features_option
@as_json
def embed(strict: bool, features: str | None, as_json: bool, **chosen: Any) -> None:
    """Embed images and prompts into the cache; what is there already is not embedded again."""
    from toolkit.pipeline.embed import embed as run

    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        done = run(plan, strict, blocks=features is not None)
    show_embedded(done, plan, as_json, features)


def show_embedded(done: Any, plan: "Plan", as_json: bool, features: str | None) -> None:
    """What `embed` did, in a line or two."""
    facts = {"embedded": done.embedded, "cached": done.cached, "prompts": done.prompts, "skipped": len(done.skipped)}
    if as_json:
        facts |= {"passed_over": plan.dataset.passed_over_by_reason()}
        print_json({**facts, "leaks": done.leaks, "notes": done.notes, "encoder": done.cache.record.identity})
        return
    blocks = " with the blocks inside the image tower" if features else ""
    click.echo(
        f"Embedded {done.embedded:,} images{blocks} and {done.prompts} prompts; "
        f"{done.cached:,} images were in the cache."
    )
    if len(done.skipped):
        click.echo(f"{len(done.skipped)} images could not be read: {plan.results / 'skipped.csv'} lists them.")
    if done.leaks:
        kept = "--keep-leaks keeps them"
        click.echo(f"{done.leaks} test images are byte for byte in the training set and were passed over ({kept}).")
