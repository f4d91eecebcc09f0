"""Heads trained on one data set, scored on another one's test images."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from folders import without_times
from trees import cifake_files, jpeg, write_folder

from toolkit.cli import main as cli
from toolkit.results import tables


def other_files(size: int = 48) -> dict[str, bytes]:
    """Another generator's images: other names, no categories, other sizes, one of them no image."""
    files = {
        f"test/{label}/{number}.jpg": jpeg(9000 + 2 * number + (label == "REAL"), label, size)
        for label in ("FAKE", "REAL")
        for number in range(6)
    }
    return {**files, "test/FAKE/00.jpg": b"no image"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("across")
    write_folder(home / "data", cifake_files(8, 4))
    write_folder(home / "other", other_files())
    shutil.copy(home / "data/train/REAL/0000 (6).jpg", home / "other/test/REAL/000.jpg")  # seen in training
    assert call(home, "embed").exit_code == 0
    return home


def call(home: Path, *words: str) -> Result:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    sizes = ["--train-per-label", "12", "--test-per-label", "5"]
    return CliRunner().invoke(cli.cli, [words[0], *map(str, place), *sizes, *words[1:]])


def test_another_set_adds_rows_without_leaks_and_unreadable_images_and_says_so(home: Path) -> None:
    call(home, "compare")
    plain = tables.read(home / "results")[0]
    result = call(home, "compare", "--test-data", str(home / "other"))
    assert result.exit_code == 0, result.output
    assert "scored on other" in result.output
    assert "Passed over in other: 1 unreadable, 1 byte for byte in the training set." in result.output
    table, predictions = tables.read(home / "results")
    new = table.filter((pl.col("test_data") == "other") & (pl.col("class") == "all"))
    assert set(new["head"]) == {"zero-shot", "logreg", "layer-probes", "knn", "shortcut"} and set(new["test"]) == {
        "other"
    }
    assert new["support"].to_list() == [10] * 5 and new["leaks_dropped"].to_list() == [1] * 5
    scored = predictions.filter(pl.col("test_data") == "other")
    assert not {"test/FAKE/00.jpg", "test/REAL/000.jpg"} & set(scored["path"])
    ordinary = table.filter(pl.col("test_data") == "")
    assert without_times(ordinary).equals(without_times(plain), null_equal=True)
    verified = CliRunner().invoke(cli.cli, ["verify-results", "--results", str(home / "results")])
    assert "0 differ" in verified.output


def test_it_is_scored_by_the_very_heads_of_the_ordinary_rows(home: Path) -> None:
    """The other set's copies of this one's test images get the same probabilities."""
    copies = home / "copies"
    for path in (home / "data/test").rglob("*.jpg"):
        place = copies / path.relative_to(home / "data")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    assert call(home, "compare", "--test-data", str(copies)).exit_code == 0
    made = tables.read(home / "results")[1].filter(pl.col("head") == "logreg")
    first, second = made.filter(pl.col("test") == "base"), made.filter(pl.col("test_data") == "copies")
    both = first.join(second, on="sha256", suffix="_copy")
    assert len(both)
    np.testing.assert_allclose(both["p_real_copy"], both["p_real"], rtol=1e-5, atol=1e-5)


def test_a_set_with_other_labels_is_answered_in_one_line(home: Path, tmp_path: Path) -> None:
    write_folder(tmp_path, {f"test/{label}/1.jpg": jpeg(1) for label in ("cat", "dog")})
    result = call(home, "compare", "--test-data", str(tmp_path))
    assert result.exit_code == 2 and "has no label 'FAKE'" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_set_without_test_images_is_answered_in_one_line(home: Path, tmp_path: Path) -> None:
    write_folder(tmp_path, {f"train/{label}/1.jpg": jpeg(1) for label in ("FAKE", "REAL")})
    result = call(home, "compare", "--test-data", str(tmp_path))
    assert result.exit_code == 2 and "no test images" in result.stderr
