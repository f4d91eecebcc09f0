"""Rows about other labels or other images stand apart; those that repeat one question stand together."""

import json
from copy import copy
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from folders import Images, store, study
from trees import jpeg, write_folder

from toolkit.cli import main as cli
from toolkit.errors import SelectionError
from toolkit.evaluation import columns
from toolkit.results import run_records, tables, version_1
from toolkit.results.entrants import studies, subject
from toolkit.results.report import page
from toolkit.results.summary import left_out_means, over_seeds, summary

CATEGORIES = ("cat", "dog", "fox")
NEW = ["labels", "split_by", "images", "study"]


def made(root: Path, categories: tuple[str, ...] = CATEGORIES, each: int = 6) -> Images:
    return Images(root / "images", categories, each=each)


def trained_on(digest: str, images: Images) -> Images:
    """The same test images in a comparison with other training images."""
    same = copy(images)
    same.digest = digest
    return same


def other(images: Images, renamed: bool = False) -> Images:
    """Data of the same name and size, with other images; `renamed`: under other paths."""
    apart = trained_on("0123456789ab", images)
    apart.rows = images.rows.with_columns(
        sha256=pl.col("sha256").str.reverse(), path=pl.lit("new/" if renamed else "") + pl.col("path")
    )
    return apart


def names(folder: Path) -> list[str]:
    return [one["study"] for one in studies(tables.read(folder)[0])]


def test_rows_about_other_labels_stay(tmp_path: Path) -> None:
    dogs = Images(tmp_path / "a", CATEGORIES, labels=("cat", "dog"))
    birds = Images(tmp_path / "b", CATEGORIES, labels=("cat", "bird"))
    store(tmp_path / "r", study(dogs), labels=dogs.labels)
    before = tables.read(tmp_path / "r")[0]
    store(tmp_path / "r", study(birds), labels=birds.labels)
    after = tables.read(tmp_path / "r")[0]
    kept = after.filter(pl.col("labels") == json.dumps(["cat", "dog"]))
    assert kept.sort(columns.KEY).equals(before.sort(columns.KEY)) and len(after) == 2 * len(before)
    assert set(after["class"]) == {"all", "cat", "dog", "bird"}
    assert tables.verify(tmp_path / "r") == []


def test_rows_of_other_images_are_another_study_and_no_rivals(tmp_path: Path) -> None:
    images = made(tmp_path)
    base = {("base", "zero-shot"): (0.5, 0.5)}
    tuned = {**base, ("finetuned", "zero-shot"): (1.0, 1.0)}
    store(tmp_path / "r", study(images, tuned))
    store(tmp_path / "r", study(other(images), base))
    table, predictions = tables.read(tmp_path / "r")
    assert len(names(tmp_path / "r")) == 2
    alone = table.filter((pl.col("images") == "0123456789ab") & (pl.col("class") == "all"))
    assert len(alone) == 2 and alone["p_best"].null_count() == 2
    encoders = sorted(len(subject(table, predictions, number).entrants) for number in (1, 2))
    assert encoders == [1, 2]
    for number in (1, 2):
        shown = subject(table, predictions, number)
        assert len({entrant.encoder for entrant in shown.entrants}) == shown.predictions["encoder"].n_unique()
        assert shown.predictions["images"].n_unique() == 1


@pytest.mark.parametrize("renamed", [False, True])
def test_another_value_held_out_of_other_images_gives_no_mean(tmp_path: Path, renamed: bool) -> None:
    images = made(tmp_path)
    store(tmp_path / "r", study(images, held_out="cat"))
    store(tmp_path / "r", study(other(images, renamed), held_out="dog"))
    table, _ = tables.read(tmp_path / "r")
    assert len(names(tmp_path / "r")) == 2 and left_out_means(table).is_empty()


def test_other_training_images_are_another_study_too(tmp_path: Path) -> None:
    images = made(tmp_path)
    store(tmp_path / "r", study(trained_on("before", images), {("finetuned", "zero-shot"): (1.0, 1.0)}))
    store(tmp_path / "r", study(trained_on("after", images), {("base", "zero-shot"): (0.5, 0.5)}))
    table, predictions = tables.read(tmp_path / "r")
    assert [len(subject(table, predictions, number).entrants) for number in (1, 2)] == [1, 1]
    with pytest.raises(SelectionError, match="1 .the newest. to 2"):
        subject(table, predictions, 3)


def test_other_labels_held_out_are_another_study_since_their_test_sets_have_other_labels(tmp_path: Path) -> None:
    images = made(tmp_path)
    for labels, seed in (("cat", 1), ("cat", 2), ("dog", 1)):
        one = trained_on(f"{labels}-{seed}", images)
        store(tmp_path / "r", study(one, held_out=labels, split_by="label", seed=seed))
    table, _ = tables.read(tmp_path / "r")
    assert len(names(tmp_path / "r")) == 2 and left_out_means(table).is_empty()
    assert set(over_seeds(table)["held_out"]) == {"cat"}


def test_values_held_out_and_seeds_of_the_same_images_are_one_study(tmp_path: Path) -> None:
    images = made(tmp_path)
    turns = [(value, seed) for value in CATEGORIES for seed in (1, 2)]
    for value, seed in turns:  # each trains on other images
        store(tmp_path / "r", study(trained_on(f"{value}-{seed}", images), held_out=value, seed=seed))
    table, _ = tables.read(tmp_path / "r")
    assert len(names(tmp_path / "r")) == 1
    assert set(left_out_means(table)["categories"]) == {3} and set(over_seeds(table)["seeds"]) == {2}
    store(tmp_path / "r", study(other(images), held_out="cat"))
    assert set(left_out_means(tables.read(tmp_path / "r")[0])["categories"]) == {3}


def test_changed_images_begin_a_study_and_leave_the_old_one_whole(tmp_path: Path) -> None:
    images = made(tmp_path)
    for held_out in ("cat", "fox"):
        store(tmp_path / "r", study(trained_on(held_out, images), held_out=held_out))
    store(tmp_path / "r", study(other(images), held_out="cat"))
    held_out = [sorted(one["held_out"]) for one in studies(tables.read(tmp_path / "r")[0])]
    assert sorted(held_out) == [["cat"], ["cat", "fox"]]


def test_what_holds_nothing_out_can_be_shown_after_what_does(tmp_path: Path) -> None:
    """Base encoders with each category held out in turn, then fine-tuning with none: two studies, two sentences."""
    images = made(tmp_path)
    base = {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.9, 0.8)}
    tuned = {**base, ("finetuned", "zero-shot"): (1.0, 1.0)}
    for value in CATEGORIES:
        store(tmp_path / "r", study(trained_on(value, images), base, held_out=value))
    store(tmp_path / "r", study(trained_on("none", images), tuned, held_out="none"))
    leads = {}
    for number, one in enumerate(studies(tables.read(tmp_path / "r")[0]), start=1):
        leads[one["held_out"] == ["none"]] = page.write(tmp_path / "r", number=number)
        text = (tmp_path / "r/report.html").read_text()
        assert ("Not tried yet" in text) == ("has not been tried yet" in text) == (one["held_out"] != ["none"])
        ways = {entrant.way for entrant in subject(*tables.read(tmp_path / "r"), number).entrants}
        assert ways == {"prompt", "probe"} | ({"finetune"} if one["held_out"] == ["none"] else set())
    assert len(leads) == 2 and "Fine-tuning" in leads[True].lead.split(" has not")[0]


def of_version_1(folder: Path) -> None:
    """Write a folder's tables as version 1 did: without the new columns."""
    for name, frame in zip(("results", "predictions"), tables.read(folder), strict=True):
        (folder / f"{name}.parquet").write_bytes(tables.parquet_bytes(frame.drop(NEW)))


def with_hashes(folder: Path) -> None:
    """Fill `data_hash` as `compare` does on base and novel."""
    table, predictions = tables.read(folder)
    tables.store(folder, table.with_columns(data_hash="images"), predictions)


def test_results_of_version_1_get_their_labels_images_and_study(tmp_path: Path) -> None:
    images, folder = made(tmp_path), tmp_path / "r"
    for value in CATEGORIES:
        store(folder, study(trained_on(value, images), held_out=value))
    with_hashes(folder)
    expected = tables.read(folder)
    of_version_1(folder)
    found = tables.read(folder)
    for frame, wanted in zip(found, expected, strict=True):
        assert frame.equals(wanted)
    assert tables.verify(folder) == []
    store(folder, study(trained_on("cat", images), held_out="cat"))
    assert len(tables.read(folder)[0]) == len(expected[0])


def test_images_that_version_1_mixed_are_parted_when_read(tmp_path: Path) -> None:
    images, folder = made(tmp_path), tmp_path / "r"
    store(folder, study(trained_on("before", images), {("finetuned", "logreg"): (1.0, 1.0)}))
    store(folder, study(trained_on("after", images), {("base", "logreg"): (0.5, 0.5)}))
    with_hashes(folder)
    table, predictions = tables.read(folder)
    mixed = table.with_columns(p_best=pl.when(pl.col("encoder") == "base").then(0.01))
    (folder / "results.parquet").write_bytes(tables.parquet_bytes(mixed.drop(NEW)))
    (folder / "predictions.parquet").write_bytes(tables.parquet_bytes(predictions.drop(NEW)))
    again = tables.read(folder)[0]
    assert again["images"].unique().sort().to_list() == ["after", "before"]
    assert again["p_best"].null_count() == len(again)
    assert tables.verify(folder) == []


def test_what_version_1_noted_is_found(tmp_path: Path) -> None:
    images = made(tmp_path)
    store(tmp_path / "r", study(images), command="python cli.py compare")
    row = tables.read(tmp_path / "r")[0].row(0, named=True)
    noted = run_records.read(tmp_path / "r")
    old = {json.dumps([row[name] for name in version_1.COMPARISON]): {"command": "an older one"}}
    assert run_records.of(old, row)["command"] == "an older one"
    assert run_records.of(old | noted, row)["command"] == "python cli.py compare"
    assert run_records.of({}, row) == {}


def test_the_workbooks_summary_tells_the_lines_apart(tmp_path: Path) -> None:
    images = made(tmp_path)
    store(tmp_path / "r", study(images))
    store(tmp_path / "r", study(other(images)))
    sheet = pl.read_excel(tmp_path / "r/results.xlsx", sheet_name="Summary", read_options={"header_row": 1})
    assert sheet["Images (hash)"].n_unique() == 2 and set(sheet["Labels"]) == {"FAKE, REAL"}
    assert len(sheet) == len(summary(tables.read(tmp_path / "r")[0]))


def test_commands_on_other_labels_and_on_other_data_of_the_same_name_keep_every_row(tmp_path: Path) -> None:
    def run(command: str, place: str, *words: str) -> None:
        folders = ["--data", tmp_path / place / "images", "--cache", tmp_path / "c", "--results", tmp_path / "r"]
        every = [command, *map(str, folders), "--model", "nano", *words]
        done = CliRunner().invoke(cli.cli, every)
        assert done.exit_code == 0, done.output

    for place, seed in (("a", 0), ("b", 500)):
        files = [(split, label, n) for split in ("train", "test") for label in ("bird", "cat", "dog") for n in range(5)]
        pictures = {f"{s}/{label}/{n}.jpg": jpeg(seed + i, "REAL", 16) for i, (s, label, n) in enumerate(files)}
        write_folder(tmp_path / place / "images", pictures)
    turns = [("a", "cat,dog"), ("a", "cat,bird"), ("b", "cat,dog")]
    for place, labels in turns:
        run("embed", place, "--labels", labels)
        run("compare", place, "--labels", labels, "--heads", "zero-shot,logreg")
    table, predictions = tables.read(tmp_path / "r")
    assert len(table) == len(turns) * 2 * 3 and len(names(tmp_path / "r")) == len(turns)
    assert predictions.group_by("images").agg(pl.col("labels").n_unique())["labels"].to_list() == [1] * len(turns)
    assert tables.verify(tmp_path / "r") == []
    page.write(tmp_path / "r", number=2)
    html = (tmp_path / "r/report.html").read_text()
    assert str(tmp_path / "a/images") in html and str(tmp_path / "b/images") in html
