"""Rows about other labels or other images never replace or join each other, even if data sets share a name."""

from pathlib import Path

import polars as pl
from folders import Images, store, study

from toolkit.results import tables
from toolkit.results.report import page
from toolkit.results.report.entrants import studies, subject


def test_rows_about_other_labels_stay(tmp_path: Path) -> None:
    for name in ("dogs", "birds"):
        images = Images(tmp_path / name, labels=("cats", name))
        store(tmp_path / "results", study(images), ("cats", name))
    table, _ = tables.read(tmp_path / "results")
    assert sorted(table["labels"].unique()) == ['["cats", "birds"]', '["cats", "dogs"]']
    assert len(studies(table)) == 2


def test_images_of_another_set_with_the_same_name_are_another_study(tmp_path: Path) -> None:
    one, other = Images(tmp_path / "a/images"), Images(tmp_path / "b/images", each=21)
    store(tmp_path / "results", study(one))
    store(tmp_path / "results", study(other, {("base", "logreg"): (0.8, 0.6)}))
    table, predictions = tables.read(tmp_path / "results")
    assert table.n_unique("study") == 2
    shown = [subject(table, predictions, number) for number in (1, 2)]
    assert sorted(len(one.entrants) for one in shown) == [1, 4]
    for each in shown:
        assert each.predictions.group_by("test").agg(pl.col("images").n_unique())["images"].to_list() == [1, 1]


def test_changed_images_begin_a_study_and_repetitions_continue_one(tmp_path: Path) -> None:
    images = Images(tmp_path / "images", categories=("dog", "cat", "frog"))
    for held_out in ("cat", "frog"):
        images.digest = f"without {held_out}"
        store(tmp_path / "results", study(images, held_out=held_out))
    assert tables.read(tmp_path / "results")[0].n_unique("study") == 1, "two held-out categories of one data set"
    images.rows = images.rows.with_columns(sha256=pl.col("sha256").str.reverse())
    images.digest = "changed"
    store(tmp_path / "results", study(images, held_out="cat"))
    assert tables.read(tmp_path / "results")[0].n_unique("study") == 2


def test_rows_that_hold_nothing_out_are_shown_apart(tmp_path: Path) -> None:
    images = Images(tmp_path / "images", categories=("dog", "cat", "frog"))
    for held_out in ("cat", "frog"):
        images.digest = f"without {held_out}"
        frozen = {("base", "zero-shot"): (0.55, 0.5), ("base", "logreg"): (0.8, 0.6)}
        store(tmp_path / "results", study(images, frozen, held_out=held_out))
    images.digest = "all"
    store(tmp_path / "results", study(images, held_out="none"))
    table, predictions = tables.read(tmp_path / "results")
    held_out = [sorted(one["held_out"]) for one in studies(table)]
    assert sorted(held_out) == [["cat", "frog"], ["none"]]
    number = held_out.index(["none"]) + 1
    assert {one.way for one in subject(table, predictions, number).entrants} == {"prompt", "probe", "finetune"}
    other = page.write(tmp_path / "results", number=3 - number)
    assert "Fine-tuning has not been tried" in other.lead
    assert "Fine-tuning has not been tried" not in page.write(tmp_path / "results", number=number).lead
