"""What changed since earlier results: paired on the same images, with interval and power; and the gate of `compare`."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from trees import cifake_files, write_folder

from toolkit.cli import main as cli
from toolkit.errors import ResultsError
from toolkit.evaluation import columns
from toolkit.results.against import against


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words])


def predictions(
    right: list[bool], held_out: str = "cat", images: str = "i", first: int = 0, **more: str
) -> pl.DataFrame:
    """One row an image of one head: whether it was called right. All are FAKE; `first` is the first image's number."""
    about = {
        "dataset": "made",
        "held_out": held_out,
        "encoder": "base",
        "recipe": "",
        "head": "logreg",
        "test": "novel",
    }
    about |= {"model": "m", "pretrained": "p", "encoder_id": "e", "perturbation": "", "test_data": "", "seed": 0}
    about |= {"images": images, "label": "FAKE", "split_by": "category", "chosen_by": "category", **more}
    rows = [
        {**about, "path": f"{n}.png", "sha256": f"{n:064x}", "predicted": "FAKE" if one else "REAL"}
        for n, one in enumerate(right, start=first)
    ]
    return pl.DataFrame(rows, schema=columns.schema(columns.PREDICTIONS))


def test_a_row_is_set_against_the_same_row_on_the_images_in_common() -> None:
    old = predictions([True] * 60 + [False] * 40)
    new = predictions([True] * 70 + [False] * 80, first=0)
    (change,) = against(new, old).changes
    assert (change.images, change.gained, change.lost) == (100, 10, 0)
    assert (change.before, change.after) == (0.6, 0.7)
    assert change.difference == pytest.approx(0.1) and change.low < 0.1 < change.high


def test_an_image_that_several_runs_scored_is_one_image() -> None:
    rng = np.random.default_rng(0)
    one, other = (list(map(bool, rng.random(200) < share)) for share in (0.6, 0.7))
    alone = against(predictions(other), predictions(one)).changes[0]
    twice = [pl.concat([predictions(right, name) for name in ("cat", "dog")]) for right in (other, one)]
    both = against(*twice).changes[0]
    assert both.images == alone.images and both.difference == pytest.approx(alone.difference)
    assert (both.low, both.high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_worse_takes_a_loss_beyond_the_margin_whose_interval_is_below_zero() -> None:
    def change(lost: int, gained: int, images: int = 400) -> object:
        old = predictions([True] * (images - gained) + [False] * gained)
        new = predictions([False] * lost + [True] * (images - lost))
        return against(new, old)

    assert change(30, 0).worse(0.01)
    assert not change(30, 0).worse(0.1), "a loss within the margin"
    assert not change(30, 22).worse(0.01), "a loss of 0.02 that may be chance"
    assert not change(0, 30).worse(0.01) and not change(0, 0).worse(0.0)


def test_another_model_is_compared_where_there_is_one_each_and_told_apart_where_there_are_two() -> None:
    one, two = predictions([True] * 20, model="one"), predictions([False] * 20, model="two")
    assert against(two, one).changes[0].difference == -1
    found = against(pl.concat([one, two]), pl.concat([one, two]))
    assert [change.difference for change in found.changes] == [0, 0]


def test_two_encoders_of_one_recipe_are_told_apart_and_how_a_head_chose_is_not() -> None:
    twins = [predictions([right] * 20, encoder_id=name) for name, right in (("one", True), ("two", False))]
    found = against(pl.concat(twins), pl.concat(twins))
    assert [change.difference for change in found.changes] == [0, 0]
    by_folds = predictions([True] * 20, chosen_by="folds", encoder_id="other")
    assert against(by_folds, twins[0]).changes[0].difference == 0


def test_of_several_old_sets_of_images_the_one_with_most_in_common_counts() -> None:
    old = pl.concat([predictions([False] * 30, images="part"), predictions([True] * 50, images="whole")])
    (change,) = against(predictions([True] * 50, images="new"), old).changes
    assert (change.images, change.difference) == (50, 0)


def test_corrected_labels_judge_both_sides_and_are_counted() -> None:
    old = predictions([False] * 10)
    new = old.with_columns(label=pl.lit("REAL"))
    found = against(new, old)
    assert found.relabelled == 10 and found.changes[0].before == 1.0
    assert "10 images bear another label" in found.notes()[-1]


def test_rows_of_one_side_are_named_and_nothing_in_common_is_an_error() -> None:
    old = pl.concat([predictions([True] * 5), predictions([True] * 5, head="knn")])
    new = pl.concat([predictions([True] * 5), predictions([True] * 5, head="lda")])
    found = against(new, old)
    assert "lda" in found.notes()[0] and "knn" in found.notes()[1]
    with pytest.raises(ResultsError, match="nothing to compare"):
        against(predictions([True] * 5, first=100), old)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    home = tmp_path_factory.mktemp("gate")
    write_folder(home / "cifake", cifake_files(16, 16))
    words = ["--data", home / "cifake", "--model", "nano", "--cache", home / "cache"]
    words += ["--train-per-label", "40", "--test-per-label", "30"]
    assert call("embed", *words).exit_code == 0
    result = call("compare", *words, "--heads", "zero-shot,logreg", "--results", home / "results")
    assert result.exit_code == 0, result.output
    return home, words


def spoiled(folder: Path, place: Path) -> Path:
    """Earlier predictions that were all right, so that whatever is compared now got worse."""
    from toolkit.results.tables import parquet_bytes, read_predictions

    old = read_predictions(folder).with_columns(predicted=pl.col("label"))
    place.write_bytes(parquet_bytes(old))
    return place


def test_the_gate_passes_what_did_not_change_also_where_old_and_new_are_one_folder(
    study: tuple[Path, list[object]],
) -> None:
    home, words = study
    result = call("compare", *words, "--heads", "logreg", "--results", home / "results", "--gate", home / "results")
    assert result.exit_code == 0, result.output
    assert "Gate: none of 2 rows got worse" in result.output and "80 % power" in result.output


def test_the_gate_leaves_with_1_where_a_row_got_worse(study: tuple[Path, list[object]], tmp_path: Path) -> None:
    home, words = study
    old = spoiled(home / "results", tmp_path / "old.parquet")
    words = [*words, "--heads", "zero-shot", "--results", tmp_path / "results"]
    result = call("compare", *words, "--gate", old, "--json")
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout) and "rows got worse by more than 0.02" in result.stderr
    assert call("compare", *words, "--gate", old, "--margin", "1").exit_code == 0
    gone = call("compare", *words, "--gate", tmp_path / "nowhere")
    assert gone.exit_code == 2 and "nowhere" in gone.output


def test_the_page_and_the_json_say_what_changed(study: tuple[Path, list[object]], tmp_path: Path) -> None:
    home, _ = study
    old = spoiled(home / "results", tmp_path / "old.parquet")
    result = call("report", "--results", home / "results", "--against", old, "--json")
    assert result.exit_code == 0, result.output
    changes = json.loads(result.stdout)["changes"]
    assert {one["head"] for one in changes} == {"zero-shot", "logreg"} and len(changes) == 4
    assert all(one["difference"] < 0 and one["before"] == 1 for one in changes if one["head"] == "zero-shot")
    page = (home / "results/report.html").read_text()
    assert "What changed since the old results?" in page and "−" in page
    assert call("report", "--results", home / "results").exit_code == 0
    assert "What changed since" not in (home / "results/report.html").read_text()
