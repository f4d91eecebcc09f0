"""`finetune`: train the encoder without the held-out value."""

from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.declare import section
from toolkit.cli.group import Command
from toolkit.cli.options import FEATURES, as_json, choose_by_option, features_option, plan_options, recipe_options
from toolkit.cli.output import of_each, prefix, print_json, say
from toolkit.cli.plans import planned, recipe_of

if TYPE_CHECKING:
    from toolkit.pipeline.plan import Plan


@click.command(cls=Command, epilog="Example: python cli.py finetune --split cat --epochs 5")
@plan_options
@recipe_options
@section("Recipe", choose_by_option)
@features_option()
@as_json
def finetune(choose_by: str, features: str, as_json: bool, **chosen: Any) -> None:
    """Fine-tune both encoders without the held-out category, then embed again with the new encoder."""
    from toolkit.pipeline.finetune import finetune as run
    from toolkit.pipeline.finetune import untrainable

    recipe = recipe_of(chosen, choose_by)
    plans = planned(chosen, as_json)
    if any(untrainable(plan) is None for plan in plans):  # else `run` says what to do instead
        plans = with_models(plans, as_json)
    done = of_each(plans, lambda plan: run(plan, recipe, FEATURES[features]))
    show_finetuned(done, plans, as_json)


def with_models(plans: "list[Plan]", as_json: bool) -> "list[Plan]":
    """Those that can be fine-tuned; prints a line for each other one."""
    from toolkit.pipeline.finetune import untrainable

    able = []
    for plan in plans:
        if reason := untrainable(plan):
            say(f"{plan.source.model} {reason}.", as_json)
        else:
            able.append(plan)
    return able


def show_finetuned(done: list[Any], plans: "list[Plan]", as_json: bool) -> None:
    """Print what `finetune` did with each encoder, a line for each held-out value."""
    from toolkit.data.held_out import NONE, in_words

    every = [(one, plan) for trained, plan in zip(done, plans, strict=True) for one in trained]
    if as_json:
        models = [{"model": plan.source.model} if len(plans) > 1 else {} for _, plan in every]
        found = [{**vars(one), "folder": str(one.folder)} for one, _ in every]
        print_json([model | facts for model, facts in zip(models, found, strict=True)])
        return
    sizes = len({one.train_per_label for one, _ in every})
    for one, plan in every:
        without = "" if one.held_out == NONE else f" without {in_words(one.held_out, plan.by)}"
        without += f" (seed {one.seed})" if one.seed else ""
        without += f" on {one.train_per_label} a label" if sizes > 1 else ""
        losses = " → ".join(f"{loss:.3f}" for loss in one.losses)
        state = f"Fine-tuned{without}: loss {losses}" if one.trained else f"Was fine-tuned{without} before"
        counts = f"embedded {one.embedded:,} images again, {one.cached:,} were in the cache."
        click.echo(f"{prefix(plan, plans)}{state}; {counts}")
