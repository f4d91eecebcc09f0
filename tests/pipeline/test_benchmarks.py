"""The benchmarks run, at the smallest size, and write their figures."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import benchmarks

TINY = {
    "comparing": "--train 300 --test 60 --part 10 --held-out 1 --rounds 1",
    "embedding": "--model nano --count 4 --rounds 1",
}


@pytest.mark.parametrize("name", TINY)
def test_it_runs_and_writes_its_figures(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(benchmarks, [name, *TINY[name].split(), "--json", str(tmp_path / "figures.json")])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["timings"] and figures["goals"]
