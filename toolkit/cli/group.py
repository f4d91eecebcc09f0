"""Commands with sections in their help pages and errors in one line."""

import logging
import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

import click

TOGETHER = ("embed", "finetune")
"""The commands that can run on several processes, started by torchrun."""

OPTION_SECTIONS = ("Options", "Data", "Model", "Recipe", "Heads", "Places", "Other test images", "Output")
"""Sections in the order of a help page. `Options` are those of a single command."""


def variable_of(option: str) -> str:
    """The environment variable of an option: --train-per-label is TOOLKIT_TRAIN_PER_LABEL."""
    return "TOOLKIT_" + option.removeprefix("--").replace("-", "_").upper()


class Option(click.Option):
    """An option with a section of the help page, which shows numbers as N."""

    section = "Options"

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        if self.metavar is None and isinstance(self.type, click.types.IntParamType | click.types.FloatParamType):
            self.metavar = "N"


class Command(click.Command):
    """A command with its options in sections, and -v, also allowed after its name."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.params.append(verbosity())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section, and how the environment sets them."""
        write_options(self.get_params(ctx), ctx, formatter)
        name = next((one.opts[0] for one in self.params if isinstance(one, Option)), None)
        if name:
            formatter.write_paragraph()
            formatter.write_text(f"The environment sets options, too: {variable_of(name)} is {name}, and so on.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example."""
        write_example(self.epilog, ctx, formatter)


class Commands(click.Group):
    """A group that prints a ToolkitError as one line with exit code 2, and Ctrl-C as one line with exit code 130."""

    command_class = Command

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.sections: dict[str, list[str]] = {}
        self.params.append(verbosity())

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands under a title of the help page."""
        for command in commands:
            self.add_command(command)
            self.sections.setdefault(title, []).append(command.name or "")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the help page."""
        placed = [name for names in self.sections.values() for name in names]
        return placed + sorted(set(self.commands).difference(placed))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, section by section, then the options."""
        names = self.list_commands(ctx)
        width = max(map(len, names), default=0)
        rest = [name for name in names if not any(name in placed for placed in self.sections.values())]
        for title, placed in [*self.sections.items(), ("Commands", rest)]:
            lines = [(name.ljust(width), self.commands[name].get_short_help_str(limit=1000)) for name in placed]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)
        write_options(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As a command's."""
        write_example(self.epilog, ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Of several processes only the first prints results; the others print errors."""
        from toolkit.errors import ToolkitError, is_out_of_memory
        from toolkit.storage import distributed

        if not logging.getLogger("toolkit").handlers:
            log_to_standard_error(0)
        who = f" (process {distributed.rank()})" if distributed.rank() else ""
        if who:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            click.echo(f"Error{who}: {as_typed(str(error), ctx)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            again = as_typed(f"python cli.py {shlex.join(sys.argv[1:])}", ctx)
            click.echo(f"\nInterrupted{who}. Everything finished is kept; go on with: {again}", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            raise  # the reader of our output has closed it; click ends quietly
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            less = "end other programs on it, or take a smaller model, a smaller --batch-size, or --device cpu"
            click.echo(f"Error{who}: The GPU has too little memory: {less}. What was stored before is kept.", err=True)
            ctx.exit(2)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            click.echo(f"Error{who}: {error.strerror or error}{place}. What was stored before is kept.", err=True)
            ctx.exit(2)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command by its name; some run in one process alone."""
        from toolkit.storage import distributed

        name, command, rest = super().resolve_command(ctx, args)
        if distributed.world() > 1 and name not in TOGETHER:
            raise click.UsageError(f"torchrun takes {' and '.join(TOGETHER)}; {name} runs in one process, by python.")
        return name, command, rest


def as_typed(text: str, ctx: click.Context) -> str:
    """Text that names a command, with the program's name as the user typed it."""
    installed = ctx.find_root().info_name == "clip-toolkit"
    return text.replace("python cli.py", "clip-toolkit") if installed else text


def write_example(example: str | None, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the example without line breaks, so that it can be copied."""
    if example:
        formatter.write(f"\n{as_typed(example, ctx)}\n")


def write_options(parameters: Iterable[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Options under the titles of their sections; --json, -v and --help come last."""
    options = [parameter for parameter in parameters if not isinstance(parameter, click.Argument)]
    for title, found in sections_of(options).items():
        lines = [line for line in (parameter.get_help_record(ctx) for parameter in found) if line]
        if lines:
            with formatter.section(title):
                formatter.write_dl(lines)


def sections_of(parameters: Iterable[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """The options by section, in the order of the help page."""
    found: dict[str, list[click.Parameter]] = {title: [] for title in OPTION_SECTIONS}
    last = found.pop("Output")
    for parameter in parameters:
        title = parameter.section if isinstance(parameter, Option) else "Output"
        (last if title == "Output" else found.setdefault(title, [])).append(parameter)
    return {title: of_title for title, of_title in [*found.items(), ("Output", last)] if of_title}


def verbosity() -> Option:
    """The option -v: log what the toolkit reads, finds in the cache and computes with; -vv: also the libraries'
    logs."""

    def listen(ctx: click.Context, parameter: click.Parameter, value: int) -> None:
        if value and not ctx.resilient_parsing:
            log_to_standard_error(value)

    text = "Log what is read, found and used; -vv: also the libraries' logs."
    made = Option(
        ["-v", "--verbose"], count=True, expose_value=False, callback=listen, help=text, envvar="TOOLKIT_VERBOSE"
    )
    made.section = "Output"
    return made


class _StandardError(logging.StreamHandler[Any]):
    """Writes to the current standard error, so that lines appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_standard_error(verbosity: int) -> None:
    """0: the toolkit's warnings, which name damaged files; 1: its log from INFO on; 2: all logs from DEBUG on."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbosity else None, "%H:%M:%S"))
    name, level = {0: ("toolkit", logging.WARNING), 1: ("toolkit", logging.INFO)}.get(verbosity, (None, logging.DEBUG))
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.handlers = [handler]
    logger.propagate = False  # a library may have added its own handler to the root logger
