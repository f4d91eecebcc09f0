"""Several seeds: everything random is done for each, and mean and spread are derived."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from folders import without_times
from trees import cifake_files, write_folder

from toolkit.cli import main as cli
from toolkit.evaluation import columns
from toolkit.results import tables
from toolkit.results.summary import OVER_SEEDS, over_seeds


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("seeds")
    write_folder(home / "data", cifake_files(8, 4))
    result = call(home, "run", "--seeds", "3", "--epochs", "1")
    assert result.exit_code == 0, result.output
    (home / "output").write_text(result.output)
    return home


def call(home: Path, *words: str) -> Result:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    sizes = ["--train-per-label", "12", "--test-per-label", "5"]
    return CliRunner().invoke(cli.cli, [words[0], *map(str, place), *sizes, *words[1:]])


def test_each_seed_has_rows_of_its_own_on_training_rows_of_its_own(home: Path) -> None:
    made = tables.read(home / "results")[0].filter((pl.col("class") == "all") & (pl.col("test") == "base"))
    assert made.group_by("seed").len().sort("seed").rows() == [(1, 12), (2, 12), (3, 12)]
    tuned = made.filter((pl.col("encoder") == "finetuned") & (pl.col("head") == "logreg"))
    assert tuned["encoder_id"].n_unique() == 3 and tuned["data_hash"].n_unique() == 3
    assert made.filter(pl.col("encoder") == "base")["encoder_id"].n_unique() == 1


def test_a_seed_among_several_gives_what_it_gives_alone(home: Path) -> None:
    before = tables.read(home / "results")[0]
    result = call(home, "compare", "--seed", "2")
    assert result.exit_code == 0 and "cli.py finetune" not in result.output
    assert without_times(tables.read(home / "results")[0]).equals(without_times(before), null_equal=True)
    again = call(home, "finetune", "--seeds", "3", "--epochs", "1", "--json")
    assert [(one["seed"], one["trained"]) for one in json.loads(again.stdout)] == [(n, False) for n in (1, 2, 3)]


def test_mean_and_spread_are_those_of_numpy(home: Path) -> None:
    table = tables.read(home / "results")[0]
    spread = over_seeds(table)
    assert len(spread) == 12 * 2 and set(spread["seeds"]) == {3}
    for row in spread.iter_rows(named=True):
        same = [pl.col(name) == row[name] for name in ("encoder", "head", "test", "recipe")]
        figures = table.filter(*same, pl.col("class") == "all")["accuracy"].to_numpy()
        expected = figures.mean(), figures.std(ddof=1), figures.min(), figures.max()
        assert np.allclose([row[name] for name in ("mean", "deviation", "lowest", "highest")], expected)
    assert "Accuracy over 3 seeds" in (home / "output").read_text()


def test_the_workbook_has_them_on_a_sheet(home: Path) -> None:
    sheet = pl.read_excel(home / "results/results.xlsx", sheet_name="Seeds", read_options={"header_row": 1})
    assert len(sheet) == 24 and sheet["Mean accuracy"].to_list() == pytest.approx(
        over_seeds(tables.read(home / "results")[0])["mean"].to_list()
    )


def test_over_several_held_out_values_the_mean_over_them_has_its_spread() -> None:
    shared = {"dataset": "d", "model": "m", "pretrained": "p", "encoder": "base", "head": "logreg", "test": "novel"}
    shared |= {"perturbation": "", "test_data": "", "recipe": "", "chosen_by": "", "encoder_id": "e", "class": "all"}
    rows = [
        {**shared, "held_out": held_out, "seed": seed, "accuracy": accuracy}
        for held_out, seed, accuracy in [("cat", 1, 0.5), ("dog", 1, 0.7), ("cat", 2, 0.8), ("dog", 2, 0.8)]
    ]
    spread = over_seeds(pl.DataFrame(rows, schema=columns.schema(columns.RESULTS)))
    found = {row["held_out"]: (row["mean"], row["lowest"]) for row in spread.iter_rows(named=True)}
    assert found == {
        "cat": pytest.approx((0.65, 0.5)),
        "dog": pytest.approx((0.75, 0.7)),
        "mean of 2": pytest.approx((0.7, 0.6)),
    }


def test_the_first_images_are_no_draw_among_draws_and_stay_in_the_table(home: Path) -> None:
    before = over_seeds(tables.read(home / "results")[0])
    assert call(home, "compare", "--results", home / "more", "--seeds", "3").exit_code == 0
    assert call(home, "embed").exit_code == 0 and call(home, "compare", "--results", home / "more").exit_code == 0
    table = tables.read(home / "more")[0]
    assert set(table["seed"]) == {0, 1, 2, 3} and set(over_seeds(table)["seeds"]) == {3}
    now = over_seeds(table)
    both = now.join(before, on=[name for name in now.columns if name not in OVER_SEEDS], nulls_equal=True)
    assert len(both) == len(now) and both["mean"].to_list() == pytest.approx(both["mean_right"].to_list())


def one_run(seed: int, held_out: str = "cat") -> dict[str, object]:
    return {"dataset": "d", "study": "s", "held_out": held_out, "seed": seed}


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        ([(0, "cat"), (1, "cat"), (2, "cat")], {1, 2}),
        ([(0, "cat"), (5, "cat")], {0}),
        ([(5, "cat")], {5}),
        ([(0, "cat"), (0, "dog"), (1, "cat"), (2, "cat")], {0}),
    ],
)
def test_means_are_of_one_kind_of_seeds(runs: list[tuple[int, str]], kept: set[int]) -> None:
    table = pl.DataFrame([one_run(*run) for run in runs], schema=columns.schema(columns.RESULTS))
    assert set(columns.of_one_design(table)["seed"]) == kept


def test_a_seed_beside_several_is_answered_in_one_line(home: Path) -> None:
    result = call(home, "compare", "--seed", "1", "--seeds", "2")
    assert result.exit_code == 2 and "leave --seed out" in result.stderr
