"""The command line: parses, calls the toolkit, prints. Everything heavy is imported where it is used."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolkit.workflow import Plan

Command = Callable[..., None]


class Commands(click.Group):
    """Turns what the user can mend into one line and exit code 2, and Ctrl-C into one line and 130."""

    def invoke(self, ctx: click.Context) -> Any:
        from toolkit.errors import ToolkitError

        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            again = shlex.join(["python", "cli.py", *sys.argv[1:]])
            click.echo(f"\nInterrupted. Everything finished is kept; go on with: {again}", err=True)
            ctx.exit(130)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            click.echo(f"Error: {error.strerror or error}{place}. What was stored before is kept.", err=True)
            ctx.exit(2)


def option(name: str, *more: str, **settings: Any) -> Callable[[Command], Command]:
    """A click option that the environment can set too: --train-per-label is TOOLKIT_TRAIN_PER_LABEL."""
    variable = "TOOLKIT_" + name.removeprefix("--").split("/")[0].replace("-", "_").upper()
    return click.option(name, *more, envvar=variable, **settings)


def options(*each: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order of the help page."""

    def decorate(command: Command) -> Command:
        for one in reversed(each):
            command = one(command)
        return command

    return decorate


CHOICES = {
    "device": click.Choice(["auto", "cuda", "mps", "cpu"]),
    "precision": click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    "loss": click.Choice(["contrastive", "supervised"]),
    "choose-by": click.Choice(["category", "folds"]),
}
A_PATH = click.Path(path_type=Path)


def chosen(name: str, default: str | None, text: str) -> Callable[[Command], Command]:
    """An option with a fixed set of values."""
    return option(f"--{name}", type=CHOICES[name], default=default, show_default=default is not None, help=text)


as_json = option("--json", "as_json", is_flag=True, help="Print facts as JSON on standard output.")
place_options = options(
    option("--cache", type=A_PATH, default=Path("cache"), show_default=True, help="Embeddings and checkpoints."),
    option("--results", type=A_PATH, default=Path("results"), show_default=True, help="Where tables are written."),
)
data_options = options(
    option(
        "--data",
        metavar="PATH",
        help="CIFAKE as folder or zip, folders split/label/category/, or a CSV or Parquet of paths.  "
        "[default: data/cifake, data/cifake.zip, else the built-in sample]",
    ),
    option("--labels", metavar="A,B", help="The two labels; P is the second's.  [default: the data's own two]"),
    option(
        "--prompt",
        "prompts",
        multiple=True,
        metavar="LABEL=TEXT",
        help="A label's prompt; repeat it for several, which are averaged.  [default: the study's]",
    ),
    option(
        "--split",
        multiple=True,
        metavar="CATEGORY",
        help="What training must not see and is scored as novel: one, several (a,b), all, or none.  [default: cat]",
    ),
    option("--train-per-label", type=click.IntRange(2), default=450, show_default=True, help="First N to train on."),
    option("--test-per-label", type=click.IntRange(1), default=100, show_default=True, help="First N to test on."),
    option("--full", is_flag=True, help="Every image instead of the first N."),
    option("--keep-leaks", is_flag=True, help="Keep test images whose bytes are in the training set."),
    option("--seed", type=click.IntRange(0), default=0, show_default=True, help="0: the first N; others draw N."),
)
model_options = options(
    option("--model", help="nano, one of open_clip's, or hf-hub:OWNER/NAME.  [default: ViT-B-32; sample: nano]"),
    option("--pretrained", metavar="TAG|FILE", help="Weights: a tag of open_clip's or a file.  [default: openai]"),
    chosen("device", "auto", "Where the model runs."),
    chosen("precision", "fp32", "The model's arithmetic."),
)
plan_options = options(data_options, model_options, place_options)
recipe_options = options(
    option("--recipe", default="study", show_default=True, help="How to fine-tune."),
    option("--epochs", type=click.IntRange(1), help="[default: the recipe's; study: 5]"),
    option("--batch-size", type=click.IntRange(2), help="[default: the recipe's; study: 32]"),
    option("--lr", "learning_rate", type=float, help="Learning rate.  [default: 1e-5; nano: 3e-4]"),
    option("--temperature", type=float, help="Of the contrastive loss.  [default: 0.07]"),
    chosen("loss", None, "Only the diagonal counts as a pair, as in the study, or all pairs with the same caption."),
)
head_options = options(
    option("--heads", default="zero-shot,logreg,knn", show_default=True, help="Which heads to compare."),
    chosen(
        "choose-by", "category", "How C, k and the like are chosen: one training category left out, or random folds."
    ),
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option("0.1.0", prog_name="clip-toolkit")
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries say, on standard error.")
def cli(verbose: bool) -> None:
    """Should I prompt CLIP, probe it, or fine-tune it?

    \b
    python cli.py run                           everything at once; without data of yours, on the built-in sample
    python cli.py run --data data/cifake.zip    the study, on CIFAKE

    Every option can also be set in the environment: --train-per-label is TOOLKIT_TRAIN_PER_LABEL.
    """
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, stream=sys.stderr)


@cli.command(epilog="Example: python cli.py embed --data data/cifake.zip --model nano")
@plan_options
@option("--strict", is_flag=True, help="Any unreadable image is an error, not only more than 1 % of them.")
@as_json
def embed(strict: bool, as_json: bool, **chosen: Any) -> None:
    """Embed images and prompts into the cache; what is there already is not embedded again."""
    from toolkit import workflow

    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        done = workflow.embed(plan, strict)
    show_embedded(done, plan, as_json)


@cli.command(epilog="Example: python cli.py finetune --split cat --epochs 5")
@plan_options
@recipe_options
@as_json
def finetune(as_json: bool, **chosen: Any) -> None:
    """Fine-tune both encoders without the held-out category, then embed again with the new encoder."""
    from toolkit import workflow

    recipe = recipe_of(chosen)
    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        done = workflow.finetune(plan, recipe)
    show_finetuned(done, as_json)


@cli.command(epilog="Example: python cli.py compare --split all --heads logreg,knn")
@plan_options
@head_options
@as_json
def compare(heads: str, choose_by: str, as_json: bool, **chosen: Any) -> None:
    """Score every head on every encoder in the cache, on base and novel images, and write the results."""
    from toolkit import workflow

    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        done = workflow.compare(plan, heads.split(","), choose_by)
    show_compared(done, plan, as_json)


@cli.command(epilog="Example: python cli.py run --data data/cifake.zip --split all")
@plan_options
@recipe_options
@head_options
@as_json
def run(heads: str, choose_by: str, as_json: bool, **chosen: Any) -> None:
    """Embed, fine-tune and compare in one go."""
    from toolkit import workflow

    recipe = recipe_of(chosen)
    plan = planned(chosen, as_json)
    with watched(plan) as plan:
        embedded = workflow.embed(plan)
    if not as_json:
        show_embedded(embedded, plan, as_json)
    with watched(plan) as plan:
        finetuned = workflow.finetune(plan, recipe)
    if not as_json:
        show_finetuned(finetuned, as_json)
    show_compared(workflow.compare(plan, heads.split(","), choose_by), plan, as_json)


@cli.command("verify-results", epilog="Example: python cli.py verify-results --results results")
@place_options
@as_json
def verify_results(cache: Path, results: Path, as_json: bool) -> None:
    """Recompute every row of the results from the predictions, and say which differ."""
    from toolkit.compare import rescore
    from toolkit.results import read, verify

    differing = verify(results, rescore)
    rows = len(read(results)[0])
    if as_json:
        print_json({"rows": rows, "differing": differing})
    else:
        click.echo(f"{rows} rows recomputed from the predictions: {len(differing)} differ.")
        click.echo("".join(f"  {line}\n" for line in differing), nl=False)
    if differing:
        sys.exit(1)


@cli.group("cache", cls=Commands)
def cache_group() -> None:
    """Look after the embedding cache."""


@cache_group.command("list", epilog="Example: python cli.py cache list --json")
@place_options
@as_json
def cache_list(cache: Path, results: Path, as_json: bool) -> None:
    """Show the encoders in the cache: rows, size, age."""
    from toolkit.cache import list_encoders

    found = list_encoders(cache)
    print_json(found) if as_json else print_facts(found, f"Nothing is embedded in {cache} yet.")


@cache_group.command("verify", epilog="Example: python cli.py cache verify")
@place_options
@as_json
def cache_verify(cache: Path, results: Path, as_json: bool) -> None:
    """Check every file in the cache against its checksum. Exit code 1 if one is damaged."""
    from toolkit.cache import verify

    found = verify(cache)
    damaged = [file for file in found if file["state"] != "whole"]
    if as_json:
        print_json(found)
    else:
        click.echo(f"{len(found)} files checked, {len(damaged)} damaged.")
        click.echo(
            "".join(f"  {file['path']}: the next embed or finetune makes it anew\n" for file in damaged), nl=False
        )
    if damaged:
        sys.exit(1)


@cache_group.command("remove", epilog="Example: python cli.py cache remove e24bfa2d")
@click.argument("encoder")
@place_options
@as_json
def cache_remove(encoder: str, cache: Path, results: Path, as_json: bool) -> None:
    """Delete an encoder's embeddings, by the start of its identity or of its folder's name."""
    from toolkit.cache import remove

    removed = remove(cache, encoder)
    print_json(removed) if as_json else click.echo("".join(f"Removed {name}\n" for name in removed), nl=False)


def planned(chosen: dict[str, Any], as_json: bool) -> "Plan":
    """The plan that the shared options ask for; says which data it is about."""
    from toolkit import encoder, workflow
    from toolkit.sources import open_data

    dataset = open_data(chosen["data"])
    labels = labels_of(chosen["labels"], dataset.labels())
    model = chosen["model"] or ("nano" if dataset.kind == "sample" else "ViT-B-32")
    say(f"Data: {dataset.description}", as_json)
    return workflow.Plan(
        dataset=dataset.with_labels(labels),
        source=encoder.source(model, chosen["pretrained"], chosen["precision"], chosen["device"]),
        prompts=prompts_of(labels, chosen["prompts"]),
        split=chosen["split"],
        train_per_label=None if chosen["full"] else chosen["train_per_label"],
        test_per_label=None if chosen["full"] else chosen["test_per_label"],
        keep_leaks=chosen["keep_leaks"],
        seed=chosen["seed"],
        cache=chosen["cache"],
        results=chosen["results"],
        asked=asked(),
    )


@contextmanager
def watched(plan: "Plan") -> Iterator["Plan"]:
    """The plan with progress bars, shown while the block runs."""
    from dataclasses import replace

    with bars() as progress:
        yield replace(plan, progress=progress)


def asked() -> str:
    """The shared options as the user wrote them, for the commands that messages name."""
    shared = {name for parameter in embed.params for name in parameter.opts if name.startswith("--")}
    context = click.get_current_context()
    words = []
    for parameter in context.command.params:
        name = parameter.opts[0]
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if name in shared and given and name not in ("--json", "--strict"):
            value = context.params[parameter.name or ""]
            values = value if isinstance(value, tuple) else (value,)
            words += [word for one in values for word in ([name] if one is True else [name, str(one)])]
    return shlex.join(words)


def labels_of(wanted: str | None, present: list[str]) -> list[str]:
    """The two labels to tell apart, the second one being what P is the probability of."""
    from toolkit.errors import SelectionError

    labels = [label.strip() for label in wanted.split(",")] if wanted else present
    if len(labels) != 2 or labels[0] == labels[1]:
        raise SelectionError(f"Two labels are compared: name them, --labels A,B. The data has {', '.join(present)}.")
    return labels


def prompts_of(labels: list[str], given: tuple[str, ...]) -> dict[str, list[str]]:
    """Each label's prompts: those of --prompt, else the study's, else the label's name in a plain sentence."""
    from toolkit.errors import SelectionError
    from toolkit.study import PROMPTS

    prompts: dict[str, list[str]] = {label: [] for label in labels}
    for one in given:
        label, _, text = one.partition("=")
        if label not in prompts or not text.strip():
            raise SelectionError(f"--prompt {one!r} is not LABEL=TEXT with a label of {', '.join(labels)}.")
        prompts[label].append(text)
    return {label: texts or [PROMPTS.get(label, f"This is a {label} image.")] for label, texts in prompts.items()}


def recipe_of(chosen: dict[str, Any]) -> Any:
    """The recipe that the training options ask for."""
    from dataclasses import replace

    from toolkit.errors import SelectionError
    from toolkit.finetune import RECIPES

    name = chosen.pop("recipe")
    changes = {field: chosen.pop(field) for field in ("epochs", "batch_size", "learning_rate", "temperature", "loss")}
    if name not in RECIPES:
        raise SelectionError(f"There is no recipe {name!r}: --recipe takes {', '.join(RECIPES)}.")
    return replace(RECIPES[name], **{field: value for field, value in changes.items() if value is not None})


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage, on standard error; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
    ) as shown:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total, rate="")
            speed = shown.tasks[tasks[stage]].speed
            shown.update(tasks[stage], completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield progress


def show_embedded(done: Any, plan: "Plan", as_json: bool) -> None:
    """What `embed` did, in a line or two."""
    facts = {"embedded": done.embedded, "cached": done.cached, "prompts": done.prompts, "skipped": len(done.skipped)}
    if as_json:
        print_json({**facts, "leaks": done.leaks, "notes": done.notes, "encoder": done.cache.record["identity"]})
        return
    for note in done.notes:
        click.echo(note)
    click.echo(
        f"Embedded {done.embedded:,} images and {done.prompts} prompts; {done.cached:,} images were in the cache."
    )
    if len(done.skipped):
        click.echo(f"{len(done.skipped)} images could not be read: {plan.results / 'skipped.csv'} lists them.")
    if done.leaks:
        kept = "--keep-leaks keeps them"
        click.echo(f"{done.leaks} test images are byte for byte in the training set and were passed over ({kept}).")


def show_finetuned(done: Any, as_json: bool) -> None:
    """What `finetune` did, a line for each held-out category."""
    if as_json:
        print_json([{**vars(one), "folder": str(one.folder)} for one in done])
        return
    for one in done:
        without = "" if one.held_out == "none" else f" without {one.held_out}"
        losses = " → ".join(f"{loss:.3f}" for loss in one.losses)
        state = f"Fine-tuned{without}: loss {losses}" if one.trained else f"Was fine-tuned{without} before"
        click.echo(f"{state}; embedded {one.embedded:,} images again, {one.cached:,} were in the cache.")


def show_compared(done: Any, plan: "Plan", as_json: bool) -> None:
    """The table like the study's, the notes, and where the files are."""
    if as_json:
        print_json(done.table.to_dicts())
        return
    from toolkit.printing import tables

    for table in tables(done.table):
        print_table(table)
    for note in done.notes:
        click.echo(note)
    click.echo(f"Written: {plan.results / 'results.xlsx'} (also .csv, .parquet) and predictions beside it.")


def say(text: str, as_json: bool) -> None:
    """A line for people: standard output, unless that is for JSON."""
    click.echo(text, err=as_json)


def print_json(facts: Any) -> None:
    """Facts for programs; what is not a number is null."""
    from math import isfinite

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items()}
        if isinstance(value, list):
            return [clean(one) for one in value]
        return None if isinstance(value, float) and not isfinite(value) else value

    click.echo(json.dumps(clean(facts), indent=1, default=str))


def print_table(table: Any) -> None:
    """A rich table, as wide as it needs to be where standard output is a file."""
    from rich.console import Console

    console = Console()
    Console(width=None if console.is_terminal else 120).print(table)


def print_facts(facts: list[dict[str, Any]], none: str) -> None:
    """Dicts with the same keys as a table, or a line where there are none."""
    from rich.table import Table

    if not facts:
        click.echo(none)
        return
    table = Table(*facts[0], box=None, header_style="bold")
    for fact in facts:
        table.add_row(*[f"{value:,}" if isinstance(value, int) else str(value) for value in fact.values()])
    print_table(table)


if __name__ == "__main__":
    cli()
