"""`run`: embed, fine-tune and compare in one go."""

import shlex
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.compare import show_compared
from toolkit.cli.embed import show_embedded
from toolkit.cli.finetune import show_finetuned, with_models
from toolkit.cli.group import Command
from toolkit.cli.options import (
    FEATURES,
    as_json,
    features_option,
    head_options,
    margin_option,
    plan_options,
    recipe_options,
)
from toolkit.cli.output import of_each, say
from toolkit.cli.plans import heads_of, planned, recipe_of
from toolkit.cli.report import draw

if TYPE_CHECKING:
    from toolkit.finetuning.recipes import Recipe
    from toolkit.pipeline.embed import Embedded
    from toolkit.pipeline.plan import Plan

STEPS = 4
TRAINING = 3.5
"""Training on an image takes about this many times as long as embedding it: forward and backward."""


@click.command(cls=Command, epilog="Example: python cli.py run --data data/cifake.zip --split all")
@plan_options
@recipe_options
@head_options
@margin_option
@features_option(None, "blocks; last with --full, and where the blocks are not known")
@as_json
def run(heads: str, choose_by: str, features: str | None, as_json: bool, **chosen: Any) -> None:
    """Embed, fine-tune and compare in one go."""
    from toolkit.pipeline.compare import compare_all
    from toolkit.pipeline.finetune import finetune

    recipe = recipe_of(chosen, choose_by)
    names = heads_of(heads)
    plans = planned(chosen, as_json)
    _start(1, "embed images and prompts", as_json)
    embedded = of_each(plans, lambda plan: _embedded(plan, features))
    if not as_json:
        show_embedded(embedded, plans, as_json)
        _say_what_is_left_out(embedded, features)
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
        click.echo("Next:")
        for command, what in next_steps(plans, embedded[0].inside):
            click.echo(f"  {command}\n    {what}")


def _embedded(plan: "Plan", features: str | None) -> "Embedded":
    """Embed with what was asked for; by default with the blocks, if a study of this size can hold them and there are
    any."""
    from toolkit.pipeline.embed import embed

    if features is not None:
        return embed(plan, inside=FEATURES[features])
    return embed(plan, inside="blocks" if plan.has_model() and plan.train_per_label else None, if_known=True)


def _say_what_is_left_out(embedded: "list[Embedded]", features: str | None) -> None:
    """A line where the blocks are not embedded though nobody said so."""
    for one in embedded:
        if features is None and one.inside is None and one.plan.has_model():
            unknown = f"the blocks of {one.plan.source.model}'s image tower are not known to the toolkit"
            too_large = "--features blocks adds the blocks, at twenty times the memory"
            click.echo(f"Probes see the last layer alone: {unknown if one.plan.train_per_label else too_large}.")


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


def next_steps(plans: "list[Plan]", inside: str | None) -> list[tuple[str, str]]:
    """Up to three commands that one would want next, with this run's options, and what each does."""
    from toolkit.data.held_out import LABEL, NONE

    plan, held_out = plans[0], plans[0].held_out()
    elsewhere = {"--cache": plan.cache, "--results": plan.results}
    places = {name: str(path) for name, path in elsewhere.items() if path != Path(name[2:])}
    suspects = shlex.split(plan.command("data suspects"))  # with what was typed, which lacks what the environment set
    suspects += [word for name, path in places.items() if name not in suspects for word in (name, path)]
    predict = shlex.join(["python", "cli.py", "predict", "YOUR_PICTURES/", *chain(*places.items())])
    wanted = [(predict, "answers for pictures of your own")]
    if not inside and plan.has_model():
        looking = _again(plan, "--features", "blocks")
        wanted.append((looking, "probes inside the image tower, too: often better, for one more pass"))
    if len(held_out) == 1 and held_out != [NONE] and plan.by != LABEL:
        every = _again(plan, "--split", "all")
        wanted.append((every, f"holds out each {plan.by} in its turn: one alone says little"))
    if len(plans) == len(held_out) == len(plan.every_seed()) == 1:
        wanted.append((shlex.join(suspects), "lists images whose labels look wrong"))
    return wanted[:3]


def _again(plan: "Plan", *options: str) -> str:
    """The command as typed, with these options in place of its own of the same name."""
    words = shlex.split(plan.typed)
    for name in options[::2]:
        if name in words:
            del words[words.index(name) : words.index(name) + 2]
    return shlex.join([*words, *options])
