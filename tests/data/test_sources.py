"""Data in folders and zips, and hostile data."""

import os
import struct
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import cifake_files, jpeg, write_folder, write_zip

from toolkit.data.images import SUFFIXES
from toolkit.data.manifest import alike, escape, hash_rows, unescape
from toolkit.data.sources import open_data, place_of
from toolkit.data.sources.cifake import CATEGORIES, parse_cifake_names
from toolkit.errors import DataError, ImageError


def test_cifake_names_say_number_and_category() -> None:
    said = [(number, suffix, width) for number in (0, 7, 99_999) for suffix in range(1, 11) for width in range(1, 6)]
    names = [f"{n:0{width}d}" + ("" if suffix == 1 else f" ({suffix})") + ".jpg" for n, suffix, width in said]
    assert parse_cifake_names(pl.Series(names)).rows() == [(number, suffix) for number, suffix, _ in said]


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1))
def test_any_other_name_is_no_cifake_name(texts: list[str]) -> None:
    for text, (number, suffix) in zip(texts, parse_cifake_names(pl.Series(texts)).rows(), strict=True):
        assert (number is None) == (suffix is None)
        assert number is None or (text.lower().endswith(SUFFIXES) and suffix in CATEGORIES)


def test_names_of_another_scheme_are_refused() -> None:
    names = ["0001 (1).jpg", "0001 (11).jpg", "0001(4).jpg", "0001.txt", "x0001.jpg", "(4).jpg", "0001.jpg\n", ""]
    assert parse_cifake_names(pl.Series(names)).rows() == [(None, None)] * len(names)


@pytest.mark.parametrize("depth", ["", "archive/"])
def test_cifake_as_folder_and_as_zip_are_the_same_data_in_the_same_order(tmp_path: Path, depth: str) -> None:
    files = {depth + name: data for name, data in cifake_files(12, 2, (1, 10, 2)).items()}
    folder, zipped = write_folder(tmp_path / "cifake", files), write_zip(tmp_path / "cifake.zip", files)
    first, second = open_data(folder), open_data(zipped)
    assert first.kind == second.kind == "cifake" and first.name == second.name == "cifake"
    assert hash_rows(first, first.rows).equals(hash_rows(second, second.rows))
    train_real = first.rows.filter((pl.col("label") == "REAL") & (pl.col("split") == "train"))
    names = [path.rsplit("/", 1)[1] for path in train_real["path"]]
    assert names[:4] == ["0000.jpg", "0000 (2).jpg", "0000 (10).jpg", "0001.jpg"] and names[-1] == "0011 (10).jpg"
    assert train_real["category"].to_list()[:3] == ["airplane", "automobile", "truck"]


def test_folders_of_labels_and_categories(tmp_path: Path) -> None:
    names = ["train/dog/big/2.jpg", "train/dog/big/10.jpg", "test/wolf/small/deep/1.png", "train/readme.txt"]
    made = open_data(write_folder(tmp_path / "animals", {name: jpeg(i) for i, name in enumerate(names)}))
    assert set(made.rows.rows()) == {
        ("test/wolf/small/deep/1.png", "wolf", "small", "test"),
        ("train/dog/big/2.jpg", "dog", "big", "train"),
        ("train/dog/big/10.jpg", "dog", "big", "train"),
    }
    train = made.rows.filter(pl.col("split") == "train")["path"].to_list()
    assert train == names[:2], "2 comes before 10"


def test_folders_of_labels_alone_have_no_categories(tmp_path: Path) -> None:
    made = open_data(write_folder(tmp_path / "x", {"train/a/1.jpg": jpeg(1), "test/b/2.jpg": jpeg(2)}))
    assert made.categories() == [] and made.labels() == ["a", "b"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_paths(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path, {"pictures/b.jpg": jpeg(1), "pictures/a.jpg": jpeg(2)})
    table = pl.DataFrame(
        {"path": ["pictures/b.jpg", "pictures/a.jpg"], "label": ["x", "y"], "split": ["Train", "test"]}
    )
    table.write_csv(tmp_path / "list.csv") if kind == "csv" else table.write_parquet(tmp_path / "list.parquet")
    made = open_data(tmp_path / f"list.{kind}")
    assert made.rows.rows() == [("pictures/b.jpg", "x", None, "train"), ("pictures/a.jpg", "y", None, "test")]
    assert made.read("pictures/b.jpg") == jpeg(1)


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
SEEN = CELLS.filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(CELLS, SEEN, st.one_of(st.none(), CELLS), st.sampled_from(["train", "Test", "TEST"])),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    kind=st.sampled_from(["csv", "parquet"]),
)
def test_any_table_of_paths_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str | None, str]], kind: str
) -> None:
    path = tmp_path_factory.mktemp("table") / f"list.{kind}"
    table = pl.DataFrame(rows, schema=dict.fromkeys(["path", "label", "category", "split"], pl.String), orient="row")
    table.write_csv(path, quote_style="non_numeric") if kind == "csv" else table.write_parquet(path)
    read = open_data(path).rows
    assert [unescape(one).decode() for one in read["path"]] == [row[0] for row in rows]
    found = read.select("label", "category", "split").rows()
    assert [(alike(label), category and alike(category), split) for label, category, split in found] == [
        (alike(row[1]), alike(row[2] or "") or None, row[3].lower()) for row in rows
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nothing", None, "No data at"),
        ("list.csv", "path,label,split\na,b,holdout\n", "its splits are called holdout"),
        ("list.csv", "path,kind,split\na,b,train\n", "it has path, kind, split; it needs path, label and split"),
        ("list.csv", "path,label,split\n", "no images"),
        ("list.csv", "path,label,split\n,b,train\n", "no path"),
        ("list.parquet", "not a parquet", "cannot be read as a table"),
        ("broken.zip", "not a zip", "cannot be read as a zip"),
        ("notes.txt", "hello", "neither a folder"),
    ],
)
def test_unknown_data_is_one_clear_line(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        open_data(tmp_path / name)
    assert "\n" not in str(caught.value)


def reason(data_set: Path, path: str) -> str:
    with pytest.raises(ImageError) as caught:
        open_data(data_set).read(path)
    return str(caught.value)


def test_a_table_cannot_name_files_outside_its_folder_devices_or_pipes(tmp_path: Path) -> None:
    home = write_folder(tmp_path / "home", {"ok.jpg": jpeg(1)})
    (tmp_path / "secret.jpg").write_bytes(jpeg(2))
    os.mkfifo(home / "pipe.jpg")
    (home / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (home / "loop.jpg").symlink_to(home / "loop.jpg")
    names = ["ok.jpg", "../secret.jpg", "/etc/passwd", "/dev/zero", "pipe.jpg", "link.jpg", "loop.jpg", "gone.jpg"]
    pl.DataFrame({"path": names, "label": "x", "split": "train"}).write_csv(home / "list.csv")
    dataset = open_data(home / "list.csv")
    hashed = hash_rows(dataset, dataset.rows)
    assert hashed["sha256"].is_not_null().to_list() == [True] + [False] * 7
    assert hashed["reason"].to_list()[1:5] == ["outside the data's folder"] * 3 + ["not a regular file"]
    assert hashed["reason"][5] == "outside the data's folder" and "no such file" in hashed["reason"][7]


def test_zip_members_that_climb_out_are_left_out(tmp_path: Path) -> None:
    files = {
        "train/a/1.jpg": jpeg(1),
        "../train/a/2.jpg": jpeg(2),
        "/train/a/3.jpg": jpeg(3),
        "train/../../x/4.jpg": b"",
    }
    assert open_data(write_zip(tmp_path / "x.zip", files)).rows["path"].to_list() == ["train/a/1.jpg"]


def test_an_encrypted_member_is_unreadable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"train/a/1.jpg": jpeg(1)})
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 8] |= 1
    path.write_bytes(bytes(data))
    assert "encrypted" in reason(path, "train/a/1.jpg")


def test_a_zip_bomb_is_refused_whatever_size_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/bomb.jpg", bytes(300 << 20))
        archive.writestr("train/a/liar.jpg", bytes(1 << 20))
    assert "more than 256 MiB" in reason(path, "train/a/bomb.jpg")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 10)
    path.write_bytes(bytes(data))
    assert "damaged" in reason(path, "train/a/liar.jpg")


def test_a_damaged_member_is_unreadable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"train/a/1.jpg": jpeg(1), "train/a/2.jpg": jpeg(2)})
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(bytes(data))
    dataset = open_data(path)
    assert hash_rows(dataset, dataset.rows)["sha256"].is_null().to_list() == [True, False]


NAMES = [b"with space.jpg", b"new\nline.jpg", b"caf\xc3\xa9.jpg", b"\xff\xfe.jpg", b"100%.jpg", b"x" * 246 + b".jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_file_names_are_read_and_named_as_plain_text(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "x/train/a"
    folder.mkdir(parents=True)
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(jpeg(1))
    dataset = open_data(tmp_path / "x")
    (path,) = dataset.rows["path"].to_list()
    assert "\n" not in path and path.encode().decode() == path
    assert dataset.read(path) == jpeg(1)


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_any_file_name_survives_being_written_as_text(name: bytes) -> None:
    assert unescape(escape(name)) == name
    escape(name).encode()


def test_links_to_folders_are_not_followed_so_no_loop_is_met(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", {"train/a/1.jpg": jpeg(1)})
    (folder / "train/a/again").symlink_to(folder)
    assert len(open_data(folder).rows) == 1


def test_the_shared_part_of_cifake(shared: Path) -> None:
    dataset = open_data(shared / "cifake-24k.zip")
    assert len(dataset.rows) == 24_000 and dataset.kind == "cifake" and dataset.name == "cifake-24k"
    counts = dataset.rows.group_by("split", "label", "category").len()
    assert set(counts.filter(pl.col("split") == "train")["len"]) == {1000}
    assert set(counts.filter(pl.col("split") == "test")["len"]) == {200}


@pytest.mark.parametrize("place", ["sample", "hf:owner/name", "s3://bucket/set.zip"])
def test_addresses_and_the_sample_are_their_own_place(place: str) -> None:
    assert place_of(place) == place


def test_the_place_of_a_folder_is_its_absolute_path() -> None:
    assert place_of("pictures") == str(Path("pictures").absolute())
