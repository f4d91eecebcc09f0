"""What `run` embeds when nobody says what: the blocks, unless the data is too large for them or nobody knows them."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from trees import cifake_files, coloured_files, write_folder

from toolkit.cli.main import cli
from toolkit.cli.run import next_steps
from toolkit.data.sources import open_data
from toolkit.encoders import blocks
from toolkit.encoders.source import source
from toolkit.errors import UnknownBlocks
from toolkit.pipeline.plan import make_plan


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), cifake_files(4, 2))


def run(data: Path, home: Path, *words: str) -> Result:
    places = ["--data", data, "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    quick = ["--epochs", "1", "--heads", "logreg"]
    return CliRunner().invoke(cli, ["run", *map(str, places), *quick, *words])


def encoders(home: Path) -> set[str]:
    return {name.split(" ")[0] for name in pl.read_csv(home / "results/results.csv")["encoder"]}


SIZES = ("--train-per-label", "12", "--test-per-label", "4")


def test_the_last_layer_alone_where_it_is_asked_for_or_all_images_are(data: Path, tmp_path: Path) -> None:
    asked = run(data, tmp_path / "asked", *SIZES, "--features", "last")
    assert asked.exit_code == 0 and "last layer alone" not in asked.output, asked.output
    every = run(data, tmp_path / "every", "--full")
    assert "Probes see the last layer alone: --features blocks adds the blocks" in every.output, every.output
    for home, done in (("asked", asked), ("every", every)):
        assert encoders(tmp_path / home) == {"base", "finetuned"}
        assert "--features blocks\n" in done.output.partition("Next:")[2]


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({"split": ("cat",)}, ["predict", "run", "data"]),
        ({"split": ("all",)}, ["predict"]),
        ({"split": ("cat",), "seeds": 2}, ["predict", "run"]),
        ({"split": ("half",), "by": "label"}, ["predict", "data"]),
    ],
)
def test_next_are_commands_that_take_these_options(options: dict[str, Any], offered: list[str], tmp_path: Path) -> None:
    dataset = open_data(write_folder(tmp_path, coloured_files(["a", "b", "c", "d"], 2, 2)))
    dataset = replace(dataset, rows=dataset.rows.with_columns(category=pl.Series(["cat", "dog"] * 8)))
    plan = make_plan(dataset, source("nano"), typed="python cli.py run", **options)
    commands = [command for command, _ in next_steps([plan], "blocks")]
    assert [command.split()[2] for command in commands] == offered
    of_two_encoders = [command.split()[2] for command, _ in next_steps([plan, plan], "blocks")]
    assert of_two_encoders == [name for name in offered if name != "data"]


@pytest.mark.parametrize("options", [{"split": ("cat",)}, {"split": ("half",), "by": "label"}])
def test_next_are_commands_with_the_places_that_the_environment_set(options: dict[str, Any], tmp_path: Path) -> None:
    dataset = open_data(write_folder(tmp_path, coloured_files(["a", "b", "c", "d"], 2, 2)))
    dataset = replace(dataset, rows=dataset.rows.with_columns(category=pl.Series(["cat", "dog"] * 8)))
    places = {"cache": tmp_path / "my cache", "results": tmp_path / "my results"}
    typed = shlex.join(["python", "cli.py", "run", *(str(w) for name in places for w in (f"--{name}", places[name]))])
    plan = make_plan(dataset, source("nano"), asked="--model nano", typed=typed, **places, **options)
    for command, _ in next_steps([plan], "blocks"):
        words = shlex.split(command)
        assert [words[words.index(f"--{name}") + 1] for name in places] == [str(one) for one in places.values()]


def test_a_tower_whose_blocks_are_not_known_is_run_without_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> None:
        raise UnknownBlocks("The blocks of this image tower are not known: take --features last.")

    monkeypatch.setattr(blocks, "blocks_of", unknown)
    done = run(data, tmp_path, *SIZES)
    assert done.exit_code == 0 and encoders(tmp_path) == {"base", "finetuned"}, done.output
    assert "images and 2 prompts; 0 images were in the cache" in done.output
    assert "Probes see the last layer alone: the blocks of nano's image tower are not known" in done.output
    refused = run(data, tmp_path, *SIZES, "--features", "blocks")
    assert refused.exit_code == 2 and "take --features last" in refused.output
