"""Hugging Face's data sets: Parquet and save_to_disk files written here by Polars, the hub by a stand-in.

That files of the `datasets` library (5.2) itself are read was tried by hand: it is not installed for the tests.
"""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
from trees import cifake_files, jpeg

from toolkit.data.manifest import hash_rows
from toolkit.data.sources import huggingface, open_data
from toolkit.errors import DataError, ImageError
from toolkit.storage import network

NAMES = ["FAKE", "REAL"]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}


def table(images: list[tuple[str | None, bytes | None, int]], **more: list[object]) -> pl.DataFrame:
    """(file name, bytes, label) as the column that Hugging Face's Image feature makes."""
    structs = [{"bytes": data, "path": name} for name, data, _ in images]
    kind = pl.Struct({"bytes": pl.Binary, "path": pl.String})
    labels = [label for *_, label in images]
    return pl.DataFrame({"image": pl.Series(structs, dtype=kind), "label": labels, **more})


def write_parquet(path: Path, frame: pl.DataFrame, features: dict[str, object] = FEATURES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    frame.write_parquet(path, metadata=about, row_group_size=7)
    return path


def write_saved(folder: Path, frame: pl.DataFrame) -> None:
    folder.mkdir(parents=True)
    frame.write_ipc_stream(folder / "data-00000-of-00001.arrow", compat_level=pl.CompatLevel.oldest())
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    (folder / "state.json").write_text("{}")


def of_split(files: dict[str, bytes], split: str, names: bool = True) -> list[tuple[str | None, bytes | None, int]]:
    mine = [(name, data) for name, data in files.items() if name.startswith(split)]
    return [(name.rsplit("/", 1)[1] if names else None, data, NAMES.index(name.split("/")[1])) for name, data in mine]


@pytest.mark.parametrize("kind", ["parquet", "save_to_disk"])
def test_cifake_is_read_in_place_with_labels_splits_categories_and_order(tmp_path: Path, kind: str) -> None:
    files = cifake_files(3, 2)
    for split in ("train", "test"):
        frame = table(of_split(files, split))
        if kind == "parquet":
            write_parquet(tmp_path / f"mine/data/{split}-00000-of-00001.parquet", frame)
        else:
            write_saved(tmp_path / "mine" / split, frame)
    (tmp_path / "mine/dataset_dict.json").write_text("{}")
    dataset = open_data(tmp_path / "mine")
    assert dataset.name == "mine" and dataset.labels() == NAMES and len(dataset.rows) == len(files)
    assert dataset.categories() == ["airplane", "automobile", "cat", "dog"]
    hashed = hash_rows(dataset, dataset.rows)
    found = set(hashed.select("sha256", "label", "split").iter_rows())
    wanted = {(hashlib.sha256(data).hexdigest(), *name.split("/")[1::-1]) for name, data in files.items()}
    assert found == wanted
    first = dataset.rows.filter((pl.col("split") == "train") & (pl.col("label") == "REAL"))["category"].to_list()
    assert first[:5] == ["airplane", "automobile", "cat", "dog", "airplane"], "by number, then by suffix"


def test_a_part_that_was_dropped_from_memory_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "PART", 2_000)
    images = [(None, jpeg(number), number % 2) for number in range(40)]
    dataset = open_data(write_parquet(tmp_path / "train.parquet", table(images)))
    order = [39, 0, 20, 1, 38, 10, 30, 0, 39]
    assert [dataset.read(f"train.parquet/{row}") for row in order] == [images[row][1] for row in order]


def test_labels_and_categories_may_be_text_and_unlabelled_images_are_left_out(tmp_path: Path) -> None:
    images = [(None, jpeg(place), label) for place, label in enumerate((0, 1, -1, 1))]
    write_parquet(tmp_path / "d/train.parquet", table(images, category=["a", "b", "a", "b"]))
    assert open_data(tmp_path / "d").rows.select("label", "category").rows() == [
        ("FAKE", "a"),
        ("REAL", "b"),
        ("REAL", "b"),
    ]
    frame = table(images).with_columns(label=pl.Series(["cats", "dogs", "cats", "dogs"]))
    assert open_data(write_parquet(tmp_path / "train-texts.parquet", frame, {})).labels() == ["cats", "dogs"]


def test_splits_that_file_names_say_are_in_the_table_of_levels(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        images = [(None, jpeg(number), number % 2) for number in range(count)]
        write_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", table(images))
    levels = {level.meaning: level for level in open_data(tmp_path / "data").layout}
    assert levels["split"].place == "file name" and levels["split"].values == {"train": 3, "test": 2}


def test_validation_is_the_test_split_only_where_there_is_no_other(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation")):
        write_parquet(tmp_path / f"d/{split}-0.parquet", table([(None, jpeg(number), 0)]))
    assert open_data(tmp_path / "d").rows["split"].to_list() == ["train", "test"]
    write_parquet(tmp_path / "d/test-0.parquet", table([(None, jpeg(2), 1)]))
    assert sorted(open_data(tmp_path / "d").rows["label"]) == ["FAKE", "REAL"]


def test_an_image_without_bytes_is_unreadable_and_the_file_it_names_is_not_opened(tmp_path: Path) -> None:
    dataset = open_data(write_parquet(tmp_path / "train.parquet", table([("/etc/passwd", None, 0)])))
    with pytest.raises(ImageError, match="not in the file"):
        dataset.read(dataset.rows["path"][0])


def test_a_damaged_or_foreign_file_is_one_clear_error(tmp_path: Path) -> None:
    write_saved(tmp_path / "d/train", table([(None, jpeg(1), 0)]))
    path = tmp_path / "d/train/data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:40])
    (tmp_path / "d/dataset_dict.json").write_text("{}")
    with pytest.raises(DataError, match="data-00000"):
        open_data(tmp_path / "d")
    no_label = table([(None, jpeg(1), 0)]).drop("label")
    with pytest.raises(DataError, match="no column 'label'"):
        open_data(write_parquet(tmp_path / "x.parquet", no_label, {}))


def test_a_parquet_of_paths_is_still_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    pl.DataFrame({"path": ["a.jpg"], "label": ["REAL"], "split": ["train"]}).write_parquet(tmp_path / "t.parquet")
    assert open_data(tmp_path / "t.parquet").kind == "table"


def test_the_hub_is_asked_for_parquet_and_then_for_its_own_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot_download(name: str, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, repo_type, revision, allow_patterns))
        folder = tmp_path / str(revision).replace("/", "-")
        folder.mkdir(exist_ok=True)
        if revision:
            for split in ("train", "test"):
                write_parquet(folder / f"default/{split}/0000.parquet", table([(None, jpeg(1), 0), (None, jpeg(2), 1)]))
        return str(folder)

    monkeypatch.setattr(network, "fail_fast_without_network", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    dataset = open_data("hf:someone/images")
    assert dataset.name == "someone/images" and sorted(dataset.rows["split"]) == ["test", "test", "train", "train"]
    assert [revision for _, _, revision, _ in asked] == [None, "refs/convert/parquet"]
    assert {(name, kind, *patterns) for name, kind, _, patterns in asked} == {
        ("someone/images", "dataset", "*.parquet")
    }


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(network, "fail_fast_without_network", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(DataError, match=r"someone/images cannot be had .* --data FOLDER") as error:
        open_data("hf:someone/images")
    assert "\n" not in str(error.value)
