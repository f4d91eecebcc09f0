"""How commands declare their options: in sections, with a variable of the environment each."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import click

from toolkit.cli.group import Option, variable_of

Command = Callable[..., None]


class _Texts(click.types.StringParamType):
    """A text of an option that can be repeated: in the environment, one a line."""

    envvar_list_splitter = "\n"


class _Positive(click.FloatRange):
    """A number above 0, which `inf` and `nan` are not here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        found = super().convert(value, param, ctx)
        return found if isfinite(found) else self.fail(f"{value} is not a number above 0.", param, ctx)


def option(name: str, *more: str, **settings: Any) -> Callable[[Command], Command]:
    """A click option that the environment can set too (`variable_of`)."""
    if settings.get("multiple"):
        settings = {"type": _Texts(), **settings}
    return click.option(name, *more, cls=Option, envvar=variable_of(name), **settings)


def options(*each: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order of the help page."""

    def decorate(command: Command) -> Command:
        for one in reversed(each):
            command = one(command)
        return command

    return decorate


def section(title: str, *each: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, under a title of the help page (`cli.group.OPTION_SECTIONS`)."""

    def decorate(command: Command) -> Command:
        before = len(getattr(command, "__click_params__", []))
        command = options(*each)(command)
        for made in command.__click_params__[before:]:  # type: ignore[attr-defined]  # where click collects them
            made.section = title
        return command

    return decorate


CHOICES = {
    "device": click.Choice(["auto", "cuda", "mps", "cpu"]),
    "precision": click.Choice(["fp32", "tf32", "bf16", "fp16", "int8"]),
    "loss": click.Choice(["contrastive", "supervised", "prompts"]),
    "choose-by": click.Choice(["category", "folds"]),
}
A_PATH = click.Path(path_type=Path)
ABOVE_0 = _Positive(min=0, min_open=True)


def chosen(name: str, default: str | None, text: str) -> Callable[[Command], Command]:
    """An option with a fixed set of values."""
    return option(f"--{name}", type=CHOICES[name], default=default, show_default=default is not None, help=text)
