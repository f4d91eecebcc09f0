"""Tables of images in many spellings, beside images or with their bytes inside."""

import json
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from trees import jpeg, write_folder, write_zip

from toolkit.data.manifest import hash_rows
from toolkit.data.sources import Reading, open_data
from toolkit.data.split import select
from toolkit.errors import DataError
from toolkit.results.tables import csv_bytes

ROWS = [("train/a 1.jpg", "FAKE", "train"), ("train/é.jpg", "REAL", "train"), ("test/b.jpg", "FAKE", "test")]
PICTURES = {path: jpeg(number) for number, (path, *_) in enumerate(ROWS)}
EXPECTED = {(jpeg(number)[:], label, split) for number, (_, label, split) in enumerate(ROWS)}


def opened(place: Path, **said: object) -> set[tuple[bytes, str, str]]:
    dataset = open_data(place, asked=Reading(**said))  # type: ignore[arg-type]
    rows = dataset.rows.select("path", pl.col("label", "split").cast(pl.String)).rows()
    return {(dataset.read(path), label, split) for path, label, split in rows}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_any_separator_and_encoding(tmp_path: Path, separator: str, encoding: str) -> None:
    write_folder(tmp_path, PICTURES)
    lines = [separator.join(row) for row in [("path", "label", "split"), *ROWS]]
    (tmp_path / "list.csv").write_bytes("\r\n".join(lines).encode(encoding))
    assert opened(tmp_path / "list.csv") == EXPECTED


@pytest.mark.parametrize("path", ["filepath", "file_name", "Image", "title", "fileName", "IMAGE-PATH", "img"])
@pytest.mark.parametrize("label", ["class", "target", "Labels", "ground_truth"])
@pytest.mark.parametrize("split", ["subset", "Set", "partition"])
def test_columns_are_known_by_many_names(tmp_path: Path, path: str, label: str, split: str) -> None:
    write_folder(tmp_path, PICTURES)
    table = pl.DataFrame(ROWS, schema=[path, label, split], orient="row")
    table.write_csv(tmp_path / "list.csv")
    assert opened(tmp_path / "list.csv") == EXPECTED


def test_columns_of_other_names_are_said_outright_else_listed(tmp_path: Path) -> None:
    write_folder(tmp_path, PICTURES)
    pl.DataFrame(ROWS, schema=["where", "kind", "use"], orient="row").write_csv(tmp_path / "list.csv")
    with pytest.raises(DataError, match="it has where, kind, use; it needs path, label and split"):
        open_data(tmp_path / "list.csv")
    assert opened(tmp_path / "list.csv", columns={"path": "where", "label": "kind", "split": "use"}) == EXPECTED
    with pytest.raises(DataError, match="no column for --columns label=sort: it has where, kind, use"):
        open_data(tmp_path / "list.csv", asked=Reading(columns={"label": "sort"}))


WRITTEN = {
    "backslashes": lambda root, path: path.replace("/", "\\"),
    "absolute": lambda root, path: f"{root}/{path}",
    "of another computer": lambda root, path: f"/home/me/sets/{path}",
    "of Windows": lambda root, path: "D:\\sets\\" + path.replace("/", "\\"),
    "dotted": lambda root, path: f"./{path}",
    "decomposed": lambda root, path: unicodedata.normalize("NFD", path),
    "in capitals": lambda root, path: path.upper(),
    "through another folder": lambda root, path: f"x/../{path}",
}


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize("zipped", [False, True])
def test_paths_are_found_however_they_are_written(tmp_path: Path, way: str, zipped: bool) -> None:
    lines = [",".join((WRITTEN[way](tmp_path, path), label, split)) for path, label, split in ROWS]
    files = {**PICTURES, "list.csv": "\n".join(["path,label,split", *lines]).encode()}
    if zipped and way == "absolute":
        pytest.skip("a zip has no place of its own")
    place = write_zip(tmp_path / "x.zip", files) if zipped else write_folder(tmp_path, files) / "list.csv"
    assert opened(place) == EXPECTED


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("each_split", [False, True])
def test_hugging_faces_metadata_beside_pictures(tmp_path: Path, kind: str, each_split: bool) -> None:
    write_folder(tmp_path, PICTURES)
    tables = {"train": ROWS[:2], "test": ROWS[2:]} if each_split else {"": ROWS}
    for folder, rows in tables.items():
        facts = [
            {"file_name": path.removeprefix(f"{folder}/"), "label": label, "camera": "x"[: len(label) % 2]}
            for path, label, _ in rows
        ]
        place = tmp_path / folder / f"metadata.{kind}"
        if kind == "csv":
            pl.DataFrame(facts).write_csv(place)
        else:
            place.write_text("\n".join(map(json.dumps, facts)))
    assert opened(tmp_path) == EXPECTED
    dataset = open_data(tmp_path)
    assert "camera" in dataset.rows.columns and dataset.passed_over.is_empty()


def test_pictures_that_the_table_beside_them_does_not_list_are_counted(tmp_path: Path) -> None:
    files = {**PICTURES, "train/other.jpg": jpeg(77), "notes.txt": b"hello"}
    write_folder(tmp_path, files)
    pl.DataFrame(ROWS, schema=["file_name", "label", "split"], orient="row").write_csv(tmp_path / "metadata.csv")
    dataset = open_data(tmp_path)
    assert set(dataset.passed_over.rows()) == {
        ("train/other.jpg", "not in the table"),
        ("notes.txt", "no picture (.txt)"),
    }
    assert len(dataset.rows) == 3


def test_further_columns_stay_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    write_folder(tmp_path, PICTURES)
    text = "path,label,split,generator,row,camera\n" + "\n".join(
        f"{path},{label},{split},{'gan' if label == 'FAKE' else ''},9,c{n}"
        for n, (path, label, split) in enumerate(ROWS)
    )
    (tmp_path / "list.csv").write_text(text)
    rows = open_data(tmp_path / "list.csv").rows
    assert rows.columns == ["path", "label", "category", "split", "generator", "camera"]
    assert rows["generator"].to_list() == ["gan", None, "gan"]
    assert all(rows.schema[name] == pl.Categorical for name in rows.columns[1:])


def test_a_picture_listed_twice_is_said_with_its_rows(tmp_path: Path) -> None:
    write_folder(tmp_path, PICTURES)
    rows = [*ROWS, ROWS[0], ("test/b.jpg", "REAL", "test"), ("./train/é.jpg", "REAL", "test"), ("", "REAL", "test")]
    pl.DataFrame(rows, schema=["path", "label", "split"], orient="row").write_csv(tmp_path / "list.csv")
    dataset = open_data(tmp_path / "list.csv")
    assert dataset.rows["path"].to_list() == ["train/a 1.jpg"]
    assert dict(dataset.passed_over.rows()) == {
        "row 8": "no path",
        "train/a 1.jpg": "listed more than once: rows 2 and 5",
        "test/b.jpg": "listed with two labels or two splits: two labels (FAKE and REAL), rows 4 and 6",
        "train/é.jpg": "listed with two labels or two splits: two splits (train and test), rows 3 and 7",
    }
    assert dataset.seen == len(rows)


def test_a_picture_listed_again_through_another_folder_is_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path, PICTURES)
    rows = [*ROWS, ("test/x/../../train/a 1.jpg", "FAKE", "test")]
    pl.DataFrame(rows, schema=["path", "label", "split"], orient="row").write_csv(tmp_path / "list.csv")
    found = dict(open_data(tmp_path / "list.csv").passed_over.rows())
    assert list(found) == ["train/a 1.jpg"]
    assert found["train/a 1.jpg"].endswith("two splits (train and test), rows 2 and 5")


def test_values_that_differ_in_case_unicode_form_or_spaces_around_them_are_one(tmp_path: Path) -> None:
    lines = ["path,label,split,category,camera"]
    for n in range(12):
        label, split = ("FAKE", "REAL", "FAKE", "Real ")[n % 4], "train" if n < 8 else "test"
        category = "dog" if n % 4 > 1 else ("caf\u00e9", "Cafe\u0301", "caf\u00e9 ")[n // 4]
        lines.append(f"{n}.jpg,{label},{split},{category},{'Kodak' if n < 8 else ' KODAK'}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = open_data(write_folder(tmp_path, {f"{n}.jpg": jpeg(n) for n in range(12)}) / "list.csv")
    assert dataset.labels() == ["FAKE", "REAL"] and set(dataset.rows["camera"]) == {"Kodak"}
    assert len(dataset.categories()) == 2 and "dog" in dataset.categories()
    assert {note.split(" count as one ")[1].split(",")[0] for note in dataset.notes} >= {"category", "camera"}
    held_out = next(one for one in dataset.categories() if one != "dog")
    split = select(dataset, held_out, None, None)
    assert set(split.train["path"]) == {"2.jpg", "3.jpg", "6.jpg", "7.jpg"}
    assert set(split.novel["path"]) == {"8.jpg", "9.jpg"}


def test_what_data_suspects_found_out_is_no_column_of_data_read_from_its_list(tmp_path: Path) -> None:
    write_folder(tmp_path, PICTURES)
    found = {"rank": [1, 2, 3], "suggested": "REAL", "p_label": 0.1, "p_suggested": 0.9, "suspect": True}
    listed = pl.DataFrame(ROWS, schema=["path", "label", "split"], orient="row")
    listed.with_columns(camera=pl.lit("x")).with_columns(
        pl.Series(name, value) if isinstance(value, list) else pl.lit(value).alias(name)
        for name, value in found.items()
    ).write_csv(tmp_path / "suspects.csv")
    assert open_data(tmp_path / "suspects.csv").rows.columns == ["path", "label", "category", "split", "camera"]
    listed.with_columns(rank=pl.Series([1, 1, 2])).write_csv(tmp_path / "own.csv")
    assert "rank" in open_data(tmp_path / "own.csv").rows.columns


def test_a_table_at_which_polars_panics_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("range end index 9 out of range for slice of length 4\nbacktrace")

    pl.DataFrame(ROWS, schema=["path", "label", "split"], orient="row").write_parquet(tmp_path / "list.parquet")
    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(DataError, match=r"^[^\n]*list\.parquet cannot be read as a table: range end index 9[^\n]*$"):
        open_data(tmp_path / "list.parquet")


def test_rows_without_a_label_or_of_no_known_split_never_train(tmp_path: Path) -> None:
    rows = [*ROWS, ("x.jpg", "", "train"), ("y.jpg", "REAL", "holdout"), ("z.jpg", "REAL", "")]
    pl.DataFrame(rows, schema=["path", "label", "split"], orient="row").write_csv(tmp_path / "list.csv")
    dataset = open_data(tmp_path / "list.csv")
    assert len(dataset.rows) == 3
    assert dict(dataset.passed_over.rows()) == {
        "x.jpg": "no label",
        "y.jpg": "neither in train nor in test: split holdout",
        "z.jpg": "neither in train nor in test",
    }


@pytest.mark.parametrize("struct", [False, True])
def test_a_parquet_of_bytes_uses_its_columns_of_split_and_category(tmp_path: Path, struct: bool) -> None:
    data = [jpeg(number) for number in range(4)]
    cells = pl.Series("picture", [{"bytes": one, "path": None} for one in data] if struct else data)
    table = pl.DataFrame({"picture": cells, "class": ["a", "b", "a", "b"], "split": ["train", "train", "val", "odd"]})
    table.with_columns(camera=pl.Series(["x", None, "y", "y"])).write_parquet(tmp_path / "all.parquet")
    dataset = open_data(tmp_path / "all.parquet")
    assert dataset.rows.select("label", "split", "camera").rows() == [
        ("a", "train", "x"),
        ("b", "train", None),
        ("a", "test", "y"),
    ]
    assert [dataset.read(path) for path in dataset.rows["path"]] == data[:3]
    assert dataset.passed_over.rows() == [("all.parquet/3", "neither in train nor in test: split odd")]


def test_parquet_files_are_told_apart_by_any_word_for_their_split(tmp_path: Path) -> None:
    for number, name in enumerate(("x-training-0.parquet", "x-testing-0.parquet", "x-unsupervised-0.parquet")):
        table = pl.DataFrame({"image": [jpeg(number), jpeg(10 + number)], "label": ["a", "b"]})
        table.write_parquet(tmp_path / name)
    dataset = open_data(tmp_path)
    assert dict(dataset.rows.group_by("split").len().rows()) == {"train": 2, "test": 2}
    assert dataset.passed_over["reason"].to_list() == ["neither in train nor in test"] * 2


def test_a_table_whose_images_are_all_missing_is_reported(tmp_path: Path) -> None:
    pl.DataFrame(ROWS, schema=["path", "label", "split"], orient="row").write_csv(tmp_path / "list.csv")
    dataset = open_data(tmp_path / "list.csv")
    assert hash_rows(dataset, dataset.rows)["reason"].to_list() == ["no such file or directory"] * 3


def test_names_as_the_toolkits_own_tables_write_them_are_found(tmp_path: Path) -> None:
    """Its tables escape `%` and put an apostrophe before what a spreadsheet would take for a formula."""
    files = {"train/-1/cat%20a.jpg": jpeg(1), "test/-1/=b.jpg": jpeg(2), "train/2/@c.jpg": jpeg(3)}
    written = open_data(write_folder(tmp_path, files)).rows.select("path", "label", "split").cast(pl.String)
    (tmp_path / "suspects.csv").write_bytes(csv_bytes(written))
    assert "%2520a" in (tmp_path / "suspects.csv").read_text() and "'-1" in (tmp_path / "suspects.csv").read_text()
    dataset = open_data(tmp_path / "suspects.csv")
    assert dataset.rows.select("path", "label", "split").cast(pl.String).rows() == written.rows()
    assert dataset.read(dataset.rows["path"][0])
