"""Write docs/commands.md from the commands themselves: python scripts/command_reference.py"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cli import cli  # noqa: E402
from commands.group import Commands, Option, sections_of  # noqa: E402

PAGE = ROOT / "docs/commands.md"
OWN = ("Options", "Output")
START = """# Commands

Made from the commands themselves by `python scripts/command_reference.py`; a test compares both. Results go to standard
output, progress and errors to standard error. Exit code 0 is success, 1 a check that found something, 2 a mistake that
can be mended, 130 Ctrl-C. After `pip install -e .` the program is also there as `clip-toolkit`, from any folder.

An option can also be set in the environment: `TOOLKIT_` and its name in capitals, with `_` for `-`. So
`TOOLKIT_TRAIN_PER_LABEL=100` is `--train-per-label 100`; flags take 1 or 0.
"""


def reference() -> str:
    """The whole page."""
    commands = list(walk(click.Context(cli, info_name="python cli.py", **cli.context_settings), ""))
    parts = [START, *(part for title, context in commands for part in command_page(title, context))]
    shared: dict[str, dict[tuple[str, str], None]] = {}
    for _, context in commands:
        for section, options in sections_of(context.command.get_params(context)).items():
            if section not in OWN:
                shared.setdefault(section, {}).update(dict.fromkeys(records(options, context)))
    parts.append("\n# Options that commands share\n")
    for section, lines in shared.items():
        parts += [f"\n## {section} options\n\n", table(list(lines))]
    return "".join(parts)


def walk(context: click.Context, section: str) -> Iterator[tuple[str, click.Context]]:
    """Each command below a group with the title that it starts, which is empty within one."""
    group = context.command
    assert isinstance(group, Commands)
    titles = {names[0]: title for title, names in group.sections.items()}
    for name in group.list_commands(context):
        section = titles.get(name, section)
        command = group.commands[name]
        below = click.Context(command, context, info_name=name, **command.context_settings)
        if not isinstance(command, Commands) or command.invoke_without_command:
            yield section, below
            section = ""
        if isinstance(command, Commands):
            yield from walk(below, section)
        section = ""


def command_page(title: str, context: click.Context) -> Iterator[str]:
    """What one command does, its example, its own options, and the names of the shared ones."""
    command = context.command
    if title:
        yield f"\n# {title}\n"
    yield f"\n## {context.command_path.removeprefix('python cli.py ')}\n\n{inspect.cleandoc(command.help or '')}\n"
    example = (command.epilog or "").removeprefix("Example: ")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n```sh\n{context.command_path} {usage}\n\n# for example\n{example}\n```\n"
    sections = sections_of(command.get_params(context))
    own = [line for name in OWN for line in records(sections.get(name, []), context)]
    yield "\n" + table([line for line in own if not line[0].startswith(("-v", "-h"))])
    shared = [(name, options) for name, options in sections.items() if name not in OWN]
    for number, (name, options) in enumerate(shared):
        names = ", ".join(f"`{option.opts[0]}`" for option in options)
        yield ("\n" if number == 0 else "") + f"- [{name}](#{name.lower()}-options): {names}\n"


def records(options: list[click.Parameter], context: click.Context) -> list[tuple[str, str]]:
    """(`--seed N`, what it does) of the options that a help page shows."""
    lines = [option.get_help_record(context) for option in options if isinstance(option, Option | click.Option)]
    return [line for line in lines if line]


def table(lines: list[tuple[str, str]]) -> str:
    """Options as a table; nothing where there are none."""
    if not lines:
        return ""
    escaped = [(name.replace("|", "\\|"), escape(" ".join(text.split()))) for name, text in lines]
    cells = [f"| `{name}` | {text} |" for name, text in escaped]
    return "\n".join(["| Option | What it does |", "|---|---|", *cells, ""])


def escape(text: str) -> str:
    """Text whose brackets are no links, in a cell of a table."""
    return text.replace("|", "\\|").replace("[", "\\[")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"Written: {PAGE.relative_to(ROOT)}")
