"""`finetune`: another encoder, trained without the held-out category."""

from typing import Any

import click

from toolkit.cli.group import Command
from toolkit.cli.options import (
    as_json,
    choose_by_option,
    features_option,
    plan_options,
    planned,
    recipe_of,
    recipe_options,
    section,
)
from toolkit.cli.output import print_json, watched


@click.command(cls=Command, epilog="Example: python cli.py finetune --split cat --epochs 5")
@plan_options
@recipe_options
@section("Recipe", choose_by_option)
@features_option
@as_json
def finetune(choose_by: str, features: str | None, as_json: bool, **chosen: Any) -> None:
    """Fine-tune both encoders without the held-out category, then embed again with the new encoder."""
    from toolkit.pipeline.finetune import finetune as run

    recipe = recipe_of(chosen, choose_by)
    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        done = run(plan, recipe, blocks=features is not None)
    show_finetuned(done, as_json)


def show_finetuned(done: Any, as_json: bool) -> None:
    """What `finetune` did, a line for each held-out category."""
    if as_json:
        print_json([{**vars(one), "folder": str(one.folder)} for one in done])
        return
    sizes = len({one.train_per_label for one in done})
    for one in done:
        without = "" if one.held_out == "none" else f" without {one.held_out}"
        without += f" (seed {one.seed})" if one.seed else ""
        without += f" on {one.train_per_label} a label" if sizes > 1 else ""
        losses = " → ".join(f"{loss:.3f}" for loss in one.losses)
        state = f"Fine-tuned{without}: loss {losses}" if one.trained else f"Was fine-tuned{without} before"
        click.echo(f"{state}; embedded {one.embedded:,} images again, {one.cached:,} were in the cache.")
