"""The command line: the group of all commands. Each command is one file beside this one."""

import io
import sys

import click

from toolkit import __version__
from toolkit.cli.cache import cache_group
from toolkit.cli.compare import compare
from toolkit.cli.completion import completion
from toolkit.cli.data import data_group
from toolkit.cli.embed import embed
from toolkit.cli.finetune import finetune
from toolkit.cli.group import Commands
from toolkit.cli.predict import predict
from toolkit.cli.report import report
from toolkit.cli.run import run
from toolkit.cli.suspects import suspects
from toolkit.cli.verify_results import verify_results


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="clip-toolkit")
def cli() -> None:
    """Should I prompt CLIP, probe it, or fine-tune it?

    \b
    python cli.py run everything at once; without --data, on the built-in sample
    python cli.py run --data data/cifake.zip    the study, on CIFAKE

    Every option can also be set in the environment: --train-per-label is TOOLKIT_TRAIN_PER_LABEL.
    """


data_group.add_command(suspects)
cli.add_section("Study", run, embed, finetune, compare)
cli.add_section("Results", report, predict, verify_results)
cli.add_section("Data and cache", data_group, cache_group)
cli.add_section("This program", completion)


def main(name: str = "clip-toolkit", complete_var: str = "_CLIP_TOOLKIT_COMPLETE") -> None:
    """Run the command line; characters that the terminal cannot show become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli(prog_name=name, complete_var=complete_var)
