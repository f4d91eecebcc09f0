"""From the values of the shared options to plans, recipes and heads, checked before long work."""

import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.options import SHARED
from toolkit.cli.output import passed_over, say

if TYPE_CHECKING:
    from toolkit.data.labels import Labels
    from toolkit.data.manifest import Dataset
    from toolkit.data.sources import Reading
    from toolkit.encoders.source import Source
    from toolkit.evaluation.adapted import Share
    from toolkit.evaluation.test_sets import Beyond
    from toolkit.pipeline.plan import Plan

MEANINGS = ("path", "label", "split", "category")
"""What --columns can name a column for."""


def planned(chosen: dict[str, Any], as_json: bool) -> "list[Plan]":
    """The plans from the shared options, one for each encoder; prints lines about the data."""
    from toolkit.data.held_out import what_is_held_out
    from toolkit.data.sources import open_data, place_of
    from toolkit.errors import SelectionError
    from toolkit.evaluation.paired import MARGIN
    from toolkit.pipeline.plan import default_model, make_plan, plans_of

    if chosen["seed"] and chosen["seeds"]:
        raise SelectionError("--seeds N does it for the seeds 1 to N: leave --seed out.")
    reading = reading_of(chosen)
    if chosen["full"] and (said := [name for name in ("train_per_label", "test_per_label") if _typed(name)]):
        raise SelectionError(f"--full takes every image: leave --{said[0].replace('_', '-')} out.")
    dataset = open_data(chosen["data"], cache=chosen["cache"], asked=reading)
    sources = _sources(chosen, default_model(dataset))
    plan = make_plan(
        dataset,
        sources[0],
        chosen["labels"] and chosen["labels"].split(","),
        prompts_of(chosen["prompts"]),
        chosen["positive"],
        chosen["templates"],
        chosen["names"],
        split=chosen["split"],
        by=chosen["by"],
        train_per_label=None if chosen["full"] else chosen["train_per_label"],
        shots=shots_of(chosen["shots"]),
        test_per_label=None if chosen["full"] else chosen["test_per_label"],
        keep_leaks=chosen["keep_leaks"],
        drop_near_copies=chosen["drop_near_copies"],
        seed=chosen["seed"],
        seeds=chosen["seeds"],
        margin=chosen.get("margin", MARGIN),
        cache=chosen["cache"],
        results=chosen["results"],
        asked=asked(),
        typed=typed(),
        data=place_of(chosen["data"]),
        reading=reading,
    )
    _say_what_it_is(dataset, "Data", as_json)
    if line := what_is_held_out(plan.dataset, plan.held_out(), plan.by):
        say(line, as_json)
    for note in dict.fromkeys(note for source in sources for note in source.notes):
        say(note, as_json)
    return plans_of(plan, sources)


def _sources(chosen: dict[str, Any], default: str) -> "list[Source]":
    """The encoders named by --model and --pretrained, each once."""
    from toolkit.encoders.source import source
    from toolkit.errors import SelectionError

    models, weights = chosen["models"] or (default,), chosen["pretrained"] or (None,)
    if len(weights) not in (1, len(models)):
        raise SelectionError(
            f"--pretrained is given {len(weights)} times and --model {len(models)} times: give one for each model, in "
            "their order, or one for all, or none for each model's best known."
        )
    weights = weights * len(models) if len(weights) == 1 else weights
    pairs = dict.fromkeys(zip(models, weights, strict=True))
    return list(dict.fromkeys(source(*pair, chosen["precision"], chosen["device"]) for pair in pairs))


def _say_what_it_is(dataset: "Dataset", title: str, as_json: bool) -> None:
    say(f"{title}: {dataset.description}", as_json)
    for told in [*dataset.notes, *passed_over(dataset.passed_over)]:
        say(told, as_json)


def reading_of(chosen: dict[str, Any]) -> "Reading":
    """How to read the data, from `reading_options`."""
    from toolkit.data.sources import Reading
    from toolkit.errors import DataError

    pairs = [part.partition("=") for part in (chosen["columns"] or "").split(",") if part.strip()]
    columns = {pair[0].strip(): pair[2].strip() for pair in pairs}
    wrong = [meaning for meaning, column in columns.items() if meaning not in MEANINGS or not column]
    if wrong:
        raise DataError(f"--columns {chosen['columns']} is not {'=COLUMN,'.join(MEANINGS)}=COLUMN, or some of these.")
    return Reading(chosen["layout"], columns, chosen.get("test_share"), equalise=chosen.get("equalise"))


def beyond_of(chosen: dict[str, Any], labels: "Labels", as_json: bool) -> "Beyond":
    """What `beyond_options` ask to score beside base and novel, checked before long work; prints a line about other
    data."""
    from toolkit.data.perturb import parse_all
    from toolkit.data.sources import open_other
    from toolkit.evaluation.test_sets import Beyond

    perturbations, other, adapt = parse_all(chosen["perturb"]), chosen["test_data"], _share_of(chosen, labels)
    if not other:
        return Beyond(perturbations, adapt=adapt)
    found = open_other(other, "test", reading_of(chosen), chosen["cache"])
    _say_what_it_is(found, "Test data", as_json)
    return Beyond(perturbations, found, adapt)


def _share_of(chosen: dict[str, Any], labels: "Labels") -> "Share | None":
    """The share that --adapt assumes; None without it."""
    from toolkit.evaluation.adapted import Share

    said, of_real = chosen["share"], chosen["real_share"]
    if said is not None and of_real is not None:
        raise click.UsageError("--share and --real-share ask for the same: choose one.")
    if not chosen["adapt"] and (said is not None or of_real is not None):
        raise click.UsageError("--share and --real-share belong to --adapt.")
    return Share.of(labels, said, of_real) if chosen["adapt"] else None


def asked() -> str:
    """The shared options as the user wrote them, for the commands that messages name."""
    return _given(SHARED, (click.core.ParameterSource.COMMANDLINE,))


def typed() -> str:
    """The whole command, with what the environment set, so that it can be run again."""
    context: click.Context | None = click.get_current_context()
    names: list[str] = []
    while context is not None and context.parent is not None:
        names, context = [context.info_name or "", *names], context.parent
    sources = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    return f"python cli.py {' '.join(names)} {_given(None, sources)}".strip()


def _given(wanted: Collection[str] | None, sources: tuple[click.core.ParameterSource, ...]) -> str:
    """The options given to the current command, all or the `wanted` ones, quoted for a shell."""
    context = click.get_current_context()
    words = []
    for parameter in context.command.params:
        name, key = parameter.opts[0], parameter.name or ""
        is_wanted = name in wanted if wanted is not None else name != "--json"
        if is_wanted and key in context.params and context.get_parameter_source(key) in sources:
            value = context.params[key]
            values = value if isinstance(value, tuple) else (value,)
            words += [word for one in values for word in ([name] if one is True else [name, str(one)])]
    return shlex.join(words)


def _typed(name: str) -> bool:
    """Whether the user typed this option, and neither the default nor the environment set it."""
    return click.get_current_context().get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def shots_of(given: str | None) -> tuple[int, ...]:
    """What --shots says."""
    from toolkit.errors import SelectionError

    parts = [part.strip() for part in (given or "").split(",") if part.strip()]
    if given is not None and not (parts and all(part.isdecimal() and int(part) > 0 for part in parts)):
        raise SelectionError(f"--shots {given!r} is not numbers of images from 1 on, as in --shots 1,2,4,8,16")
    if parts and _typed("train_per_label"):
        raise SelectionError("--shots says how many images of each label train: leave --train-per-label out.")
    return tuple(map(int, parts))


def prompts_of(given: tuple[str, ...]) -> dict[str, list[str]]:
    """The prompts of each label, from --prompt."""
    from toolkit.errors import SelectionError

    prompts: dict[str, list[str]] = {}
    for one in given:
        label, _, text = one.partition("=")
        if not label.strip() or not text.strip():
            raise SelectionError(f"--prompt {one!r} is not LABEL=TEXT, as in --prompt 'REAL=This is a real image.'")
        prompts.setdefault(label.strip(), []).append(text)
    return prompts


def recipe_of(chosen: dict[str, Any], choose_by: str) -> Any:
    """The recipe from the training options."""
    from toolkit.finetuning.recipes import make_recipe

    names = ("epochs", "batch_size", "learning_rate", "temperature", "loss", "augment", "alpha")
    choose = chosen.pop("choose")
    recipe = make_recipe(chosen.pop("recipe"), **{name: chosen.pop(name) for name in names})
    return recipe.chosen(choose_by) if choose else recipe


def heads_of(wanted: str) -> list[str]:
    """The heads named by --heads, checked before long work."""
    from toolkit.heads import check_names

    return check_names([name.strip() for name in wanted.split(",") if name.strip()])
