"""Few shots: several numbers of training images, each in its turn, from one embedding."""

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from trees import cifake_files, write_folder

from toolkit import Study
from toolkit.cli import main as cli
from toolkit.prediction import kept_heads
from toolkit.results import tables

SHOTS = ["--shots", "4,1,2", "--seeds", "2"]
HEADS = ["--heads", "zero-shot,logreg,layer-probes"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embedded for the largest size alone, fine-tuned on one size, compared on all."""
    home = tmp_path_factory.mktemp("shots")
    write_folder(home / "data", cifake_files(8, 4))
    first = call(home, "embed", "--shots", "4", "--seeds", "2")
    tuned = call(home, "finetune", "--shots", "2", "--seeds", "2", "--epochs", "1", "--json")
    assert first.exit_code == tuned.exit_code == 0, first.output + tuned.output
    assert [(one["seed"], one["train_per_label"]) for one in json.loads(tuned.stdout)] == [(1, 2), (2, 2)]
    result = call(home, "compare", *SHOTS, *HEADS)
    assert result.exit_code == 0, result.output
    (home / "output").write_text(result.output)
    return home


def call(home: Path, *words: str) -> Result:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    return CliRunner().invoke(cli.cli, [words[0], *map(str, place), "--test-per-label", "5", *words[1:]])


def test_each_size_and_seed_has_ordinary_rows_and_fine_tuned_ones_where_it_was_asked(home: Path) -> None:
    every = tables.read(home / "results")[0].filter((pl.col("class") == "all") & (pl.col("test") == "novel"))
    assert set(every.select("seed", "train_per_label", "train_rows").rows()) == {
        (seed, size, 2 * size) for seed in (1, 2) for size in (1, 2, 4)
    }
    assert set(every.filter(pl.col("encoder") == "base")["train_per_label"]) == {1, 2, 4}
    assert set(every.filter(pl.col("encoder") == "finetuned")["train_per_label"]) == {2}


def test_with_one_image_a_label_a_head_takes_its_default_and_says_so(home: Path) -> None:
    one = tables.read(home / "results")[0].filter((pl.col("train_per_label") == 1) & (pl.col("class") == "all"))
    assert set(one["chosen_by"]) == {"default", ""}
    choices = {row["head"]: json.loads(row["choice"]) for row in one.iter_rows(named=True)}
    assert choices["logreg"] == {"C": 1.0, "log_loss": None, "by": "default"}
    assert choices["layer-probes"] == {"C": [1.0], "weights": [1.0], "log_loss": None, "by": "default"}


def test_all_sizes_are_scored_on_the_same_images(home: Path) -> None:
    predictions = tables.read(home / "results")[1]
    tested = predictions.group_by("seed", "train_per_label", "test").agg(pl.col("sha256").unique().sort())
    assert tested.group_by("seed", "test").agg(pl.col("sha256").n_unique())["sha256"].to_list() == [1] * 4


def test_what_was_embedded_for_the_largest_size_is_enough_and_more_is_asked_for_by_name(home: Path) -> None:
    again = json.loads(call(home, "embed", *SHOTS, "--json").stdout)
    assert again["embedded"] == 0
    more = call(home, "compare", "--shots", "4,16", "--seeds", "2")
    assert more.exit_code == 2 and "--shots 4,16" in more.stderr and "python cli.py embed" in more.stderr


def test_the_terminal_shows_the_curves_and_what_they_say(home: Path) -> None:
    output = (home / "output").read_text()
    assert "Accuracy by training images a label: data, nano, means over 2 seeds" in " ".join(output.split())
    assert "a probe (base CLIP · " in output and "fine-tuning (fine-tuned CLIP (study epochs=1) · " in output
    assert "No encoder is fine-tuned without cat on 1 and 4 images a label" in " ".join(output.split())
    assert output.count("trained on 8 images") == 2 and "trained on 4 images" not in output


def test_predict_has_the_heads_of_the_largest_size_alone(home: Path) -> None:
    assert {kept.record.train_rows for kept in kept_heads.find(home / "results/heads")} == {8}


@pytest.mark.parametrize("rule", [["--alpha", "0.5"], ["--fake-recall", "0.5"]])
def test_what_one_image_a_label_cannot_calibrate_is_answered_in_one_line(home: Path, rule: list[str]) -> None:
    places = ["--cache", str(home / "cache"), "--results", str(home / "single")]
    if not (home / "single").exists():
        assert call(home, "compare", "--shots", "1", "--seed", "1", "--heads", "logreg", *places).exit_code == 0
    done = CliRunner().invoke(cli.cli, ["predict", str(home / "data/test/FAKE"), *places, *rule])
    assert done.exit_code == 2 and "one image alone of FAKE, REAL" in done.stderr and "--calibrate" in done.stderr


def test_a_study_embeds_the_largest_size_and_compares_all(home: Path, tmp_path: Path) -> None:
    places = {"cache": home / "cache", "results": tmp_path}
    study = Study(home / "data", "nano", shots=(1, 4), test_per_label=5, **places)
    assert len(study.embed().train.y) == 8
    assert set(study.compare(["lda"])["train_per_label"]) == {1, 4}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shots", "1,two"], "is not numbers of images"),
        (["--shots", "0,1"], "is not numbers of images"),
        (["--shots", "1,2", "--train-per-label", "4"], "leave --train-per-label out"),
    ],
)
def test_what_makes_no_sense_is_answered_in_one_line(home: Path, words: list[str], said: str) -> None:
    result = call(home, "compare", *words)
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1
