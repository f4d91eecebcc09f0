"""Output of commands: results on standard output, progress and errors on standard error."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import polars as pl

    from toolkit.pipeline.plan import Plan

LEAST = ("images", "F1", "Calibration error", "Macro ROC AUC", "Top-5 accuracy", "Balanced accuracy")
"""Columns left out on a narrow terminal, in this order; the files have them all."""


@contextmanager
def watched(plan: "Plan") -> Iterator["Plan"]:
    """The plan with progress bars, shown during the block."""
    from dataclasses import replace

    with bars() as progress:
        yield replace(plan, progress=progress)


def of_each(plans: "list[Plan]", step: Callable[["Plan"], Any]) -> list[Any]:
    """The results of `step` for each plan in turn, with progress bars."""
    done = []
    for one in plans:
        with watched(one) as plan:
            done.append(step(plan))
    return done


def prefix(plan: "Plan", plans: "list[Plan]") -> str:
    """The prefix of a line about one of several encoders: its name and weights."""
    return f"{plan.source.model} {plan.source.pretrained or ''}".strip() + ": " if len(plans) > 1 else ""


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage, on standard error; silent if that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from toolkit.storage import distributed

    stage, rate = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rate]}")
    columns = (stage, BarColumn(), MofNCompleteColumn(), rate)
    console = Console(stderr=True, markup=False, emoji=False)
    hidden = not console.is_terminal or distributed.rank() > 0
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=hidden, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if total == 1 and not done and not hidden:  # whoever downloads meanwhile shows a bar of its own
                shown.stop()
                console.print(f"{stage} …", style="dim")
                return
            if total == 1:
                shown.start()
                return
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total, rate="")
            speed = shown.tasks[tasks[stage]].speed
            shown.update(tasks[stage], completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield progress


def say(text: str, as_json: bool) -> None:
    """Print a line on standard output, or on standard error if standard output is for JSON."""
    click.echo(text, err=as_json)


def passed_over(files: "pl.DataFrame") -> list[str]:
    """A line about files that are not used (columns path, reason), with an example of each reason; an empty list for
    none."""
    from toolkit.data.manifest import by_reason

    if files.is_empty():
        return []
    kinds = [
        f"{one['count']:,} {one['reason']} ({one['example']}{': ' + one['detail'] if one['detail'] else ''})"
        for one in by_reason(files)
    ]
    return [f"Passed over {len(files):,} {'file' if len(files) == 1 else 'files'}: {'; '.join(kinds)}."]


def print_json(facts: Any) -> None:
    """Print facts as JSON; NaN and infinity become null."""
    from math import isfinite

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items()}
        if isinstance(value, list):
            return [clean(one) for one in value]
        return None if isinstance(value, float) and not isfinite(value) else value

    click.echo(json.dumps(clean(facts), indent=1, default=str))


def print_table(table: Any) -> None:
    """Print a rich table: with its full width to a file, and on a narrow terminal without the least important
    columns."""
    from rich.console import Console

    console = Console(markup=False, emoji=False)  # labels and paths may have square brackets and colons
    if console.is_terminal:
        _make_narrower(table, console)
        console.print(table)
    else:
        wide = Console(width=1000, markup=False, emoji=False).measure(table).maximum
        Console(width=wide, markup=False, emoji=False).print(table)


def _make_narrower(table: Any, console: Any) -> None:
    for header in LEAST:
        if console.measure(table, options=console.options.update(width=1000)).maximum <= console.width:
            return
        table.columns = [column for column in table.columns if column.header != header]
    table.padding, table.pad_edge = (0, 1, 0, 0), False


def print_facts(facts: list[dict[str, Any]], none: str) -> None:
    """Print dicts with the same keys as a table, or the line `none` if there are none."""
    from rich.table import Table

    if not facts:
        click.echo(none)
        return
    table = Table(*facts[0], box=None, header_style="bold")
    for fact in facts:
        table.add_row(*[f"{value:,}" if isinstance(value, int) else str(value) for value in fact.values()])
    print_table(table)
