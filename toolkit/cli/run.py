"""`run`: embed, fine-tune and compare in one go."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.compare import show_compared
from toolkit.cli.embed import show_embedded
from toolkit.cli.finetune import show_finetuned, with_models
from toolkit.cli.group import Command
from toolkit.cli.options import as_json, head_options, margin_option, plan_options, recipe_options, run_features_option
from toolkit.cli.output import of_each, say
from toolkit.cli.plans import heads_of, planned, recipe_of
from toolkit.cli.report import draw

if TYPE_CHECKING:
    from toolkit.finetuning.recipes import Recipe
    from toolkit.pipeline.embed import Embedded
    from toolkit.pipeline.plan import Plan

STEPS = 4
LAST_LAYER = "last"
TRAINING = 3.5
"""Training on an image takes about this many times as long as embedding it: forward and backward."""


@click.command(cls=Command, epilog="Example: python cli.py run --data data/cifake.zip --split all")
@plan_options
@recipe_options
@head_options
@margin_option
@run_features_option
@as_json
def run(heads: str, choose_by: str, features: str, as_json: bool, **chosen: Any) -> None:
    """Embed, fine-tune and compare in one go."""
    from toolkit.pipeline.compare import compare_all
    from toolkit.pipeline.finetune import finetune

    recipe = recipe_of(chosen, choose_by)
    names = heads_of(heads)
    plans = planned(chosen, as_json)
    _start(1, "embed images and prompts", as_json)
    embedded = of_each(plans, lambda plan: _embedded(plan, features, as_json))
    if not as_json:
        show_embedded(embedded, plans, as_json)
    trainable = with_models(plans, as_json)
    _start(2, f"fine-tune, and embed again{_about(embedded, recipe)}", as_json)
    finetuned = of_each(trainable, lambda plan: finetune(plan, recipe))
    if not as_json:
        show_finetuned(finetuned, trainable, as_json)
    _start(3, f"compare {', '.join(names)}, from the cache", as_json)
    show_compared(compare_all(plans, names, choose_by), plans[0], as_json)
    _start(4, "draw the page (a few seconds)", as_json)
    draw(plans[0], as_json)
    if not as_json:
        _show_next(plans[0], features)


def _embedded(plan: "Plan", features: str, as_json: bool) -> "Embedded":
    """Embed with these features; with the last layer alone where the blocks of the image tower are not known."""
    from toolkit.errors import UnknownBlocks
    from toolkit.pipeline.embed import embed

    try:
        return embed(plan, inside=None if features == LAST_LAYER else features)
    except UnknownBlocks:
        unknown = f"The blocks of {plan.source.model}'s image tower are not known to the toolkit"
        say(f"{unknown}: probes see its last layer alone.", as_json)
        return embed(plan)


def _start(number: int, what: str, as_json: bool) -> None:
    """A line before each step, so that it is always said what is being done."""
    say(f"[{number}/{STEPS}] {what} …", as_json)


def _about(embedded: "list[Embedded]", recipe: "Recipe") -> str:
    """How long fine-tuning will take, from what embedding took an image; nothing where that is not known."""
    minutes = 0.0
    for one in embedded:
        seconds = one.cache.measured("images").seconds
        if seconds is None:
            return ""
        images = sum(len(split.train) * recipe.epochs for split in one.splits)
        minutes += TRAINING * images * seconds / 60
    return f" (about {max(1, round(minutes))} min if nothing is in the cache)"


def _show_next(plan: "Plan", features: str) -> None:
    """Three commands that one would want next, with this run's options."""
    from toolkit.data.held_out import NONE

    elsewhere = {"--cache": plan.cache, "--results": plan.results}
    places = [word for name, path in elsewhere.items() if path != Path(name[2:]) for word in (name, str(path))]
    predict = shlex.join(["python", "cli.py", "predict", "YOUR_PICTURES/", *places])
    wanted = [(predict, "answers for pictures of your own")]
    if features == LAST_LAYER:
        inside = _again(plan, "--features", "blocks", "--heads", "logreg,knn,layer-probes")
        wanted.append((inside, "probes inside the image tower, too: often better, for one more pass"))
    if len(held_out := plan.held_out()) == 1 and held_out != [NONE]:
        every = _again(plan, "--split", "all")
        wanted.append((every, f"holds out each {plan.by} in its turn: one alone says little"))
    wanted.append((plan.command("data suspects"), "lists images whose labels look wrong"))
    click.echo("Next:")
    for command, what in wanted[:3]:
        click.echo(f"  {command}\n    {what}")


def _again(plan: "Plan", *options: str) -> str:
    """The command as typed, with these options in place of its own of the same name."""
    words = shlex.split(plan.typed)
    for name in options[::2]:
        if name in words:
            del words[words.index(name) : words.index(name) + 2]
    return shlex.join([*words, *options])
