"""The command line. Each command is one file in `commands/`."""

import logging
import sys

import click

from commands.cache import cache_group
from commands.compare import compare
from commands.embed import embed
from commands.finetune import finetune
from commands.group import Commands
from commands.run import run
from commands.verify_results import verify_results


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
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, stream=sys.stderr)


for command in (run, embed, finetune, compare, verify_results, cache_group):
    cli.add_command(command)

if __name__ == "__main__":
    cli()
