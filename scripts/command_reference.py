"""Write docs/commands.md from the commands themselves: python scripts/command_reference.py"""

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.cli.group import Commands, Option, sections_of  # noqa: E402
from toolkit.cli.main import cli  # noqa: E402

PAGE = ROOT / "docs/commands.md"
OWN = ("Options", "Output")

Line = tuple[str, str]
"""`--seed N` and what it does."""
START = """# Commands

Made from the commands themselves by `python scripts/command_reference.py`; a test compares both. Results go to standard
output, progress and errors to standard error. Exit code 0 is success, 1 a check that found something, 2 a mistake that
can be mended, 130 Ctrl-C. After `pip install -e .` the program is also there as `clip-toolkit`, from any folder.

An option can also be set in the environment: `TOOLKIT_` and its name in capitals, with `_` for `-`. So
`TOOLKIT_TRAIN_PER_LABEL=100` is `--train-per-label 100`; flags take 1 or 0, and an option that can be
repeated takes one value a line.
"""


def reference() -> str:
    """The whole page."""
    commands = list(walk(click.Context(cli, info_name="python cli.py", **cli.context_settings), ""))
    shared = shared_options([context for _, context in commands])
    parts = [START, *(part for title, context in commands for part in command_page(title, context, shared))]
    parts.append("\n# Options that commands share\n")
    for section, lines in shared.items():
        parts += [f"\n## {section} options\n\n", table(lines)]
    return "".join(parts)


def shared_options(contexts: list[click.Context]) -> dict[str, list[Line]]:
    """Of each section the options that several commands explain in the same words."""
    times: dict[str, Counter[Line]] = {}
    for context in contexts:
        for section, options in sections_of(context.command.get_params(context)).items():
            times.setdefault(section, Counter()).update(records(options, context))
    found = {section: [line for line, count in lines.items() if count > 1] for section, lines in times.items()}
    return {section: lines for section, lines in found.items() if lines and section not in OWN}


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


def command_page(title: str, context: click.Context, shared: dict[str, list[Line]]) -> Iterator[str]:
    """What one command does, its example, its own options, and the names of the shared ones."""
    command = context.command
    if title:
        yield f"\n# {title}\n"
    yield f"\n## {context.command_path.removeprefix('python cli.py ')}\n\n{inspect.cleandoc(command.help or '')}\n"
    example = (command.epilog or "").removeprefix("Example: ")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n```sh\n{context.command_path} {usage}\n\n# for example\n{example}\n```\n\n"
    own, links = [], []
    for section, options in sections_of(command.get_params(context)).items():
        lines = records(options, context)
        both = [line for line in lines if line in shared.get(section, [])]
        own += [line for line in lines if line not in both and not line[0].startswith(("-v", "-h"))]
        names = ", ".join(f"`{name.split()[0]}`" for name, _ in both)
        links += [f"- [{section}](#{section.lower().replace(' ', '-')}-options): {names}\n"] if both else []
    yield table(own) + ("\n" if own and links else "") + "".join(links)


def records(options: list[click.Parameter], context: click.Context) -> list[Line]:
    """(`--seed N`, what it does) of the options that a help page shows."""
    lines = [option.get_help_record(context) for option in options if isinstance(option, Option | click.Option)]
    return [line for line in lines if line]


def table(lines: list[Line]) -> str:
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
