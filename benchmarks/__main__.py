"""`python -m benchmarks NAME`."""

import click

from benchmarks.comparing import comparing
from benchmarks.draws import draws
from benchmarks.embedding import embedding
from benchmarks.feel import feel
from benchmarks.finetuning import finetuning
from benchmarks.gpu import gpu
from benchmarks.memory import memory, memory_once
from benchmarks.near_copies import near_copies
from benchmarks.others import others
from benchmarks.reading import reading
from benchmarks.suspects import suspects
from benchmarks.whole_study import whole_study


@click.group()
def benchmarks() -> None:
    """Each prints one table and, with --json, writes the same figures."""


for command in (
    embedding,
    reading,
    finetuning,
    comparing,
    draws,
    others,
    feel,
    memory,
    memory_once,
    near_copies,
    suspects,
    whole_study,
    gpu,
):
    benchmarks.add_command(command)

if __name__ == "__main__":
    benchmarks()
