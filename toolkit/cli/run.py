"""`run`: embed, fine-tune and compare in one go."""

from typing import Any

import click

from toolkit.cli.compare import show_compared
from toolkit.cli.embed import show_embedded
from toolkit.cli.finetune import show_finetuned, with_models
from toolkit.cli.group import Command
from toolkit.cli.options import as_json, features_option, head_options, margin_option, plan_options, recipe_options
from toolkit.cli.output import of_each
from toolkit.cli.plans import heads_of, planned, recipe_of
from toolkit.cli.report import draw


@click.command(cls=Command, epilog="Example: python cli.py run --data data/cifake.zip --split all")
@plan_options
@recipe_options
@head_options
@margin_option
@features_option
@as_json
def run(heads: str, choose_by: str, features: str | None, as_json: bool, **chosen: Any) -> None:
    """Embed, fine-tune and compare in one go."""
    from toolkit.pipeline.compare import compare_all
    from toolkit.pipeline.embed import embed
    from toolkit.pipeline.finetune import finetune

    recipe = recipe_of(chosen, choose_by)
    names = heads_of(heads)
    plans = planned(chosen, as_json)
    embedded = of_each(plans, lambda plan: embed(plan, blocks=features is not None))
    if not as_json:
        show_embedded(embedded, plans, as_json, features)
    trainable = with_models(plans, as_json)
    finetuned = of_each(trainable, lambda plan: finetune(plan, recipe))
    if not as_json:
        show_finetuned(finetuned, trainable, as_json)
    show_compared(compare_all(plans, names, choose_by), plans[0], as_json)
    draw(plans[0], as_json)
