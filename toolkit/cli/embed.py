"""`embed`: embed images and prompts into the cache."""

from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.declare import option
from toolkit.cli.group import Command
from toolkit.cli.options import FEATURES, as_json, features_option, plan_options
from toolkit.cli.output import of_each, prefix, print_json
from toolkit.cli.plans import planned

if TYPE_CHECKING:
    from toolkit.pipeline.plan import Plan


@click.command(cls=Command, epilog="Example: python cli.py embed --data data/cifake.zip --model nano")
@plan_options
@option("--strict", is_flag=True, help="Fail on any unreadable image; by default only if more than 1 % are unreadable.")
@features_option()
@as_json
def embed(strict: bool, features: str, as_json: bool, **chosen: Any) -> None:
    """Embed images and prompts into the cache; whatever is in the cache already is not embedded again."""
    from toolkit.pipeline.embed import embed as run

    plans = planned(chosen, as_json)
    done = of_each(plans, lambda plan: run(plan, strict, FEATURES[features]))
    show_embedded(done, plans, as_json)


def show_embedded(done: list[Any], plans: "list[Plan]", as_json: bool) -> None:
    """What `embed` did with each encoder, in a line or two; as JSON one object, or a list of them for several."""
    if as_json:
        facts = [_facts(one, plan) for one, plan in zip(done, plans, strict=True)]
        print_json(facts if len(facts) > 1 else facts[0])
        return
    for one, plan in zip(done, plans, strict=True):
        _show(one, plan, prefix(plan, plans))


def _facts(done: Any, plan: "Plan") -> dict[str, Any]:
    facts = {"embedded": done.embedded, "cached": done.cached, "prompts": done.prompts, "skipped": len(done.skipped)}
    facts |= {"passed_over": plan.dataset.passed_over_by_reason()}
    return {**facts, "leaks": done.leaks, "notes": done.notes, "encoder": done.cache.record.identity}


def _show(done: Any, plan: "Plan", about: str) -> None:
    from toolkit.encoders.faster import faster_here
    from toolkit.errors import counted

    inside = f" with the {done.inside} inside the image tower" if done.inside else ""
    click.echo(
        f"{about}Embedded {counted(done.embedded, 'image')}{inside} and {counted(done.prompts, 'prompt')}; "
        f"{counted(done.cached, 'image')} {'was' if done.cached == 1 else 'were'} in the cache."
    )
    if len(done.skipped):
        click.echo(
            f"{counted(len(done.skipped), 'image')} could not be read: {plan.results / 'skipped.csv'} lists them."
        )
    if done.leaks:
        kept = "--keep-leaks keeps them"
        click.echo(f"{done.leaks} test images are also in the training set, byte for byte, and were left out ({kept}).")
    if better := faster_here(done.cache.record, done.took):
        needs = ' (pip install -e ".[int8]")' if better == "int8" else ""
        what = "an encoder of its own, whose vectors differ a little (docs/speed.md)"
        click.echo(f"Faster on this processor: --precision {better}{needs}, {what}.")
