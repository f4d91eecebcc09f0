"""Published folder layouts: the meaning of folders is found from all paths together, or given by the user."""

from pathlib import Path

import polars as pl
import pytest
from trees import cifake_files, jpeg, write_folder, write_tar, write_zip

from toolkit.data.manifest import Dataset, hash_rows
from toolkit.data.sources import Reading, open_data, open_other
from toolkit.data.split import select
from toolkit.errors import DataError


def pictures(*names: str) -> dict[str, bytes]:
    """A picture of its own for each name; `{}` in a name stands for the numbers 1 to 3."""
    written = [name.format(number) for name in names for number in ((1, 2, 3) if "{}" in name else (0,))]
    return {name: jpeg(number) for number, name in enumerate(written)}


def read_as(dataset: Dataset) -> str:
    return "/".join(level.meaning for level in dataset.layout)


def values(dataset: Dataset, column: str) -> set[str | None]:
    return set(dataset.rows[column].to_list())


WRITERS = {
    "folder": lambda root, files: write_folder(root / "x", files),
    "zip": lambda root, files: write_zip(root / "x.zip", files),
    "tar": lambda root, files: write_tar(root / "x.tar", files),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("around", ["", "archive/", "a/b/c/"])
def test_a_layout_is_the_same_in_a_folder_a_zip_and_a_tar_whatever_is_around_it(
    tmp_path: Path, kind: str, around: str
) -> None:
    files = pictures(
        *(
            f"{around}{s}/{c}/{n}/{{}}.png"
            for s in ("train", "val")
            for c in ("horse", "zebra")
            for n in ("0_real", "1_fake")
        )
    )
    dataset = open_data(WRITERS[kind](tmp_path, files))
    assert read_as(dataset) == "split/category/label" and "read as split/category/label" in dataset.description
    assert values(dataset, "label") == {"0_real", "1_fake"} and values(dataset, "category") == {"horse", "zebra"}
    assert dataset.rows["split"].value_counts().sort("split")["count"].to_list() == [12, 12]
    assert "val is used as the test split" in dataset.notes[0] and dataset.seen == len(files)


def test_generators_may_have_categories_or_not(tmp_path: Path) -> None:
    names = [f"test/{g}/{n}/{{}}.jpg" for g in ("dalle", "whichfaceisreal") for n in ("0_real", "1_fake")]
    names += [f"test/cyclegan/{c}/{n}/{{}}.jpg" for c in ("apple", "zebra") for n in ("0_real", "1_fake")]
    names += [f"train/{c}/{n}/{{}}.jpg" for c in ("apple", "bus") for n in ("0_real", "1_fake")]
    rows = open_data(write_folder(tmp_path / "x", pictures(*names))).rows
    assert set(rows.select("split", "generator", "category").unique().rows()) == {
        ("test", "dalle", None),
        ("test", "whichfaceisreal", None),
        ("test", "cyclegan", "apple"),
        ("test", "cyclegan", "zebra"),
        ("train", None, "apple"),
        ("train", None, "bus"),
    }


def test_genimage_has_its_generators_outside(tmp_path: Path) -> None:
    inside = {"Midjourney": "imagenet_midjourney", "wukong": "imagenet_ai_0424_wukong"}
    names = [f"{g}/{i}/{s}/{n}/{{}}.png" for g, i in inside.items() for s in ("train", "val") for n in ("ai", "nature")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert values(dataset, "generator") == set(inside) and values(dataset, "label") == {"ai", "nature"}
    assert values(dataset, "category") == {None} and dataset.rows["split"].null_count() == 0


def test_generators_below_a_label_are_not_categories(tmp_path: Path) -> None:
    names = [f"{s}/fake/{g}/{{}}.png" for s in ("train", "test") for g in ("sdxl", "stylegan")]
    dataset = open_data(
        write_folder(tmp_path / "x", pictures(*names, "train/real/coco/{}.png", "test/real/lsun/{}.png"))
    )
    assert set(dataset.rows.select("label", "generator").unique().rows()) == {
        ("fake", "sdxl"),
        ("fake", "stylegan"),
        ("real", None),
    }


def test_the_innermost_split_counts(tmp_path: Path) -> None:
    names = [f"train/{s}/{n}/{{}}.jpg" for s in ("train", "test") for n in ("REAL", "FAKE")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert {(path.split("/")[1], split) for path, split in dataset.rows.select("path", "split").rows()} == {
        ("train", "train"),
        ("test", "test"),
    }


@pytest.mark.parametrize(
    "word",
    [
        "test",
        "testing",
        "Eval",
        "EVALUATION",
        "valid",
        "val",
        "Validation",
        "dev",
        "Test Set",
        "test_images",
        "val-data",
    ],
)
def test_every_word_for_a_test_split_is_one(tmp_path: Path, word: str) -> None:
    names = [f"{s}/{n}/{{}}.jpg" for s in ("Training", word) for n in ("a", "b")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert dict(dataset.rows.group_by("split").len().rows()) == {"train": 6, "test": 6}


def test_validation_beside_test_and_folders_of_neither_are_passed_over(tmp_path: Path) -> None:
    names = [f"{s}/{n}/{{}}.jpg" for s in ("train", "val", "test", "extra") for n in ("a", "b")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert dict(dataset.rows.group_by("split").len().rows()) == {"train": 6, "test": 6}
    found = {one["reason"]: one["count"] for one in dataset.passed_over_by_reason()}
    assert found == {"a validation split beside the test split": 6, "neither in train nor in test": 6}


def test_labels_that_differ_in_case_alone_are_one(tmp_path: Path) -> None:
    names = ["train/REAL/{}.jpg", "train/FAKE/{}.jpg", "test/real/0.jpg", "test/Fake/0.jpg"]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert dataset.labels() == ["FAKE", "REAL"]
    assert sorted(dataset.notes) == [
        "FAKE and Fake count as one label, FAKE.",
        "REAL and real count as one label, REAL.",
    ]


def test_the_images_of_a_held_out_category_never_train_however_their_folder_is_written(tmp_path: Path) -> None:
    files = [f"train/{n}/{c}/{{}}.jpg" for n in ("REAL", "FAKE") for c in ("Cat", "dog")]
    files += [f"test/{n}/{c}/0.jpg" for n in ("REAL", "FAKE") for c in ("cat", "dog")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*files)))
    assert dataset.categories() == ["Cat", "dog"] and "Cat and cat count as one category, Cat." in dataset.notes
    split = select(dataset, "Cat", None, None)
    assert {path.split("/")[2] for path in split.train["path"]} == {"dog"}
    assert {path.split("/")[2] for path in split.novel["path"]} == {"cat"}


def test_folders_called_training_set_and_testing_are_splits(tmp_path: Path) -> None:
    names = [f"{s}/{n}/{{}}.jpg" for s in ("Training Set", "testing") for n in ("a", "b")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert dict(dataset.rows.group_by("split").len().rows()) == {"train": 6, "test": 6}
    assert dataset.labels() == ["a", "b"] and dataset.passed_over.is_empty()


def test_a_category_called_nature_is_no_label(tmp_path: Path) -> None:
    names = [f"{s}/{n}/{c}/{{}}.jpg" for s in ("train", "test") for n in ("real", "ai") for c in ("nature", "city")]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names)))
    assert dataset.labels() == ["ai", "real"] and dataset.categories() == ["city", "nature"]


def test_a_third_label_beside_two_known_ones_is_a_label(tmp_path: Path) -> None:
    names = [f"{s}/{n}/{{}}.jpg" for s in ("train", "test") for n in ("real", "fake", "edited")]
    assert open_data(write_folder(tmp_path / "x", pictures(*names))).labels() == ["edited", "fake", "real"]


def test_labels_without_a_split_are_divided_by_content(tmp_path: Path) -> None:
    files = pictures(*(f"{n}/{number}.jpg" for n in ("REAL", "FAKE") for number in range(60)))
    files["REAL/copy.jpg"] = files["REAL/7.jpg"]
    folder = write_folder(tmp_path / "x", files)
    unasked = open_data(folder)
    assert 10 < (unasked.rows["split"] == "test").sum() < 50 and "--test-share 0.2" in unasked.notes[-1]
    first = open_data(folder, asked=Reading(test_share=0.3))
    moved = {f"deep/{name}": data for name, data in files.items()}
    again = open_data(write_zip(tmp_path / "y.zip", moved), asked=Reading(test_share=0.3))
    sides = [
        dict(hash_rows(one, one.rows).select("sha256", pl.col("split").cast(pl.String)).rows())
        for one in (first, again)
    ]
    assert sides[0] == sides[1], "the same contents on the same side, whatever they are called"
    assert 15 < list(sides[0].values()).count("test") < 60
    both = dict(first.rows.select("path", "split").rows())
    assert both["REAL/copy.jpg"] == both["REAL/7.jpg"]


def test_a_share_is_not_drawn_where_a_test_split_is(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", pictures("train/a/{}.jpg", "test/b/{}.jpg"))
    with pytest.raises(DataError, match="leave --test-share out"):
        open_data(folder, asked=Reading(test_share=0.2))


def test_a_layout_said_outright_is_taken_at_its_word(tmp_path: Path) -> None:
    names = [f"cam{c}/{n}-{s}/skin/{{}}.jpg" for c in (1, 2) for n in ("mole", "melanoma") for s in ("train", "dev")]
    folder = write_folder(tmp_path / "x", {**pictures(*names), "odd.jpg": jpeg(99)})
    dataset = open_data(folder, asked=Reading(layout="{camera}/{label}-{split}/*/{number}.jpg"))
    assert dataset.rows.columns == ["path", "label", "category", "split", "camera", "number"]
    assert values(dataset, "camera") == {"cam1", "cam2"} and values(dataset, "label") == {"mole", "melanoma"}
    assert dataset.passed_over.rows() == [("odd.jpg", "does not fit {camera}/{label}-{split}/*/{number}.jpg")]
    assert dataset.seen == len(dataset.rows) + 1


def test_other_data_is_read_as_ones_own_where_that_fits_else_as_it_looks_and_needs_no_split(tmp_path: Path) -> None:
    asked = Reading("{label}/{generator}", test_share=0.2)
    write_folder(tmp_path / "own", pictures("a/x/{}.jpg", "b/x/{}.jpg"))
    write_folder(tmp_path / "alike", pictures("a/x/{}.jpg", "a/y/{}.jpg", "b/x/{}.jpg"))
    write_folder(tmp_path / "unlike", pictures("REAL/{}.jpg", "FAKE/{}.jpg"))
    alike = open_other(str(tmp_path / "alike"), "test", asked)
    assert values(alike, "generator") == {"x", "y"} and values(alike, "split") == {"test"}
    unlike = open_other(str(tmp_path / "unlike"), "train", asked)
    assert unlike.labels() == ["FAKE", "REAL"] and values(unlike, "split") == {"train"}
    assert "drawn as test split" in open_data(tmp_path / "unlike").notes[-1]


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{label}/{label}", "{label", "{path}/{label}", ""])
def test_a_layout_that_says_too_little_is_one_clear_line(tmp_path: Path, layout: str) -> None:
    folder = write_folder(tmp_path / "x", pictures("a/b/{}.jpg"))
    with pytest.raises(DataError) as caught:
        open_data(folder, asked=Reading(layout=layout))
    assert "\n" not in str(caught.value) and ("--layout" in str(caught.value))


@pytest.mark.parametrize(
    ("layout", "meant"),
    [("{splt}/{label}", "split"), ("{splits}/{label}", "split"), ("{split}/{label}/{categorie}", "category")],
)
def test_a_mistyped_placeholder_is_answered_with_the_right_one(tmp_path: Path, layout: str, meant: str) -> None:
    folder = write_folder(tmp_path / "x", pictures("train/a/b/{}.jpg"))
    with pytest.raises(DataError, match=rf"Did you mean \{{{meant}\}}\?"):
        open_data(folder, asked=Reading(layout=layout))


def test_a_layout_that_fits_nothing_is_one_clear_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", pictures("a/b/{}.jpg"))
    with pytest.raises(DataError, match="fits none of 3 images: the first is a/b/1.jpg"):
        open_data(folder, asked=Reading(layout="{split}/{category}/{generator}/{label}"))


@pytest.mark.parametrize("change", [str.lower, lambda name: name.replace(".jpg", ".PNG"), lambda name: f"deep/{name}"])
def test_cifake_keeps_its_categories_whatever_case_suffix_or_folder(tmp_path: Path, change: object) -> None:
    files = {change(name): data for name, data in cifake_files(3, 2).items()}  # type: ignore[operator]
    dataset = open_data(write_folder(tmp_path / "x", files))
    assert dataset.kind == "cifake" and dataset.categories() == ["airplane", "automobile", "cat", "dog"]
    assert dataset.labels() == ["FAKE", "REAL"] and len(dataset.rows) == len(files)


def test_odd_names_among_cifakes_are_listed_and_the_categories_stay(tmp_path: Path) -> None:
    odd = {
        "train/REAL/cover.jpg": jpeg(900),
        "test/FAKE/0000 (11).jpg": jpeg(901),
        "train/FAKE/._0000.jpg": b"\0\5\x16\7",
    }
    dataset = open_data(write_folder(tmp_path / "x", {**cifake_files(3, 2), **odd}))
    assert dataset.kind == "cifake" and dataset.rows["category"].null_count() == 0
    assert set(dataset.passed_over["path"]) == set(odd)
    assert dataset.seen == len(cifake_files(3, 2)) + 3


def test_numbered_copies_are_not_cifake(tmp_path: Path) -> None:
    names = [f"{s}/{n}/{number:03d}.jpg" for s in ("train", "test") for n in ("REAL", "FAKE") for number in range(20)]
    dataset = open_data(write_folder(tmp_path / "x", pictures(*names, "train/REAL/000 (2).jpg")))
    assert dataset.kind == "folder" and dataset.categories() == []
