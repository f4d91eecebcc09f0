"""A head is fitted once on the same rows: later comparisons read it, and say the same to the last bit."""

import json
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from folders import without_times
from trees import cifake_files, out_of_reach, write_folder

from toolkit.cli import main as cli
from toolkit.heads import knn, layer_probes, logreg
from toolkit.results import tables

HEADS = ["--heads", "zero-shot,logreg,layer-probes,knn,lda,tip-adapter,clap,shortcut"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("kept")
    write_folder(home / "data", cifake_files(8, 4))
    assert call(home, "embed", "--features", "blocks").exit_code == 0
    assert call(home, "compare", *HEADS).exit_code == 0
    return home


def call(home: Path, *words: str) -> Result:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    sizes = ["--train-per-label", "12", "--test-per-label", "5"]
    return CliRunner().invoke(cli.cli, [words[0], *map(str, place), *sizes, *words[1:]])


def nothing_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    for of_class in (logreg.LogisticProbe, knn.NearestNeighbours, layer_probes.LayerProbes):
        monkeypatch.setattr(of_class, "fit", None)


def test_the_second_comparison_fits_nothing_and_has_the_same_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, said = tables.read(home / "results")
    nothing_is_fitted(monkeypatch)
    again = call(home, "compare", *HEADS)
    assert again.exit_code == 0, again.output
    table, predictions = tables.read(home / "results")
    assert without_times(table).equals(without_times(before), null_equal=True)
    assert predictions.equals(said, null_equal=True)
    learned = pl.col("head").is_in(["logreg", "layer-probes", "knn"])
    assert table.filter(learned)["fitting_seconds"].equals(before.filter(learned)["fitting_seconds"]), (
        "as measured then"
    )


def test_other_images_settings_or_libraries_are_fitted_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_fitted(monkeypatch)
    for change in (["--choose-by", "folds"], ["--train-per-label", "11"]):
        assert isinstance(call(home, "compare", "--heads", "logreg", *change).exception, TypeError), change
    monkeypatch.setattr("toolkit.evaluation.kept_fits.version", lambda _: "another")
    assert isinstance(call(home, "compare", "--heads", "logreg").exception, TypeError)


def test_fits_of_other_code_go_when_nobody_added_to_them_for_a_week(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home, tmp_path / "home")
    fits = tmp_path / "home/cache/fits"
    (mine,) = fits.iterdir()
    for name, days in (("newer", 6), ("older", 8)):
        shutil.copytree(mine, fits / name)
        os.utime(fits / name, (time.time() - days * 86400,) * 2)
    monkeypatch.setattr("toolkit.evaluation.kept_fits.code_version", lambda: "other")
    assert call(tmp_path / "home", "compare", "--heads", "logreg").exit_code == 0
    assert {folder.name for folder in fits.iterdir()} == {mine.name, "newer", "other"}


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_damaged_fit_is_set_aside_and_made_again(home: Path, suffix: str) -> None:
    assert call(home, "compare", *HEADS).exit_code == 0
    before = without_times(tables.read(home / "results")[0])
    files = sorted((home / "cache/fits").rglob(f"*.{suffix}"))
    whole = {file: file.read_bytes() for file in files}
    for file, data in whole.items():
        file.write_bytes(data[: len(data) // 2])
    checked = CliRunner().invoke(cli.cli, ["cache", "verify", "--cache", str(home / "cache"), "--json"])
    damaged = [one["path"] for one in json.loads(checked.stdout) if one["state"] == "damaged"]
    assert damaged == [str(file) for file in files]
    again = call(home, "compare", *HEADS)
    assert again.exit_code == 0
    assert all(f"{file} was damaged and is set aside" in again.output.replace("\n", "") for file in files)
    assert all(file.exists() for file in files)
    assert without_times(tables.read(home / "results")[0]).equals(before, null_equal=True)


def test_a_fit_that_cannot_be_read_now_is_made_again_and_not_set_aside(home: Path) -> None:
    assert call(home, "compare", *HEADS).exit_code == 0
    before = without_times(tables.read(home / "results")[0])
    with ExitStack() as stack:
        for file in (home / "cache/fits").rglob("*.json"):
            stack.enter_context(out_of_reach(file))
        again = call(home, "compare", *HEADS)
    assert again.exit_code == 0 and "set aside" not in again.output, again.output
    assert without_times(tables.read(home / "results")[0]).equals(before, null_equal=True)
