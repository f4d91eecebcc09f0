"""Every file in a folder, a zip, a tar or a table is either used or listed with a reason."""

import io
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import jpeg, write_folder, write_tar, write_zip

from toolkit.data import images
from toolkit.data.images import decode
from toolkit.data.manifest import Dataset, escape, hash_rows
from toolkit.data.sources import open_data
from toolkit.data.sources.loose import open_loose
from toolkit.errors import DataError

A_PICTURE = jpeg(1)
FOLDERS = st.sampled_from(
    [
        "train",
        "Test",
        "val",
        "REAL",
        "fake",
        "0_real",
        "1_fake",
        "cat",
        "sdxl",
        "__MACOSX",
        "images",
        "x y",
        "é",
        "extra",
    ]
)
NAMES = st.sampled_from(
    ["0001 (4).jpg", "0002.jpg", "a.PNG", "._a.jpg", "Thumbs.db", ".DS_Store", "b", "c.jfif", "d.heic", "notes.txt"]
)
PATHS = st.builds(lambda folders, name: "/".join([*folders, name]), st.lists(FOLDERS, max_size=4), NAMES)


def is_a_tree(paths: list[str]) -> bool:
    """No path is a folder of another one."""
    folders = {path.rsplit("/", depth)[0] for path in paths for depth in range(1, path.count("/") + 1)}
    return not folders & set(paths)


def account(dataset: Dataset) -> set[str]:
    """The files that a data set lists: each once, with a reason if it is not used."""
    met = [*dataset.rows["path"], *dataset.passed_over["path"]]
    assert len(met) == len(set(met)) == dataset.seen
    assert dataset.passed_over["reason"].str.len_chars().min() != 0
    assert set(dataset.rows["split"]) <= {"train", "test"} and dataset.rows["label"].null_count() == 0
    for level in dataset.layout:
        assert sum(level.values.values()) <= len(dataset.rows)
    return set(met)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    paths=st.lists(PATHS, min_size=1, max_size=14, unique_by=lambda path: path).filter(is_a_tree),
    kind=st.sampled_from(["folder", "zip", "tar"]),
)
def test_every_file_of_a_random_tree_is_used_or_listed(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], kind: str
) -> None:
    root, files = tmp_path_factory.mktemp("tree"), dict.fromkeys(paths, A_PICTURE)
    writer = {"zip": write_zip, "tar": write_tar}.get(kind, write_folder)
    place = writer(root / f"x.{kind}", files)
    try:
        assert account(open_data(place)) == set(paths)
    except DataError as error:  # what cannot be understood is said in one line
        assert "\n" not in str(error)
    if kind != "tar":
        met = open_loose([str(place)])
        rows = [path for path in met.rows["path"] if path != str(place)]  # the place itself, where it has no picture
        assert len({*rows, *met.passed_over["path"]}) == len(paths)


CELLS = st.sampled_from(
    ["a.jpg", "./a.jpg", "b\\c.jpg", "gone.jpg", "../up.jpg", "/etc/passwd", "", "B/C.JPG", "é.png"]
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(CELLS, st.sampled_from(["x", "y", ""]), st.sampled_from(["train", "TESTING", "val", "odd", ""])),
        min_size=1,
        max_size=10,
    )
)
def test_every_row_of_a_random_table_is_used_or_listed(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    root = write_folder(tmp_path_factory.mktemp("table"), {"a.jpg": A_PICTURE, "b/c.jpg": A_PICTURE})
    pl.DataFrame(rows, schema=["path", "label", "split"], orient="row").write_csv(root / "list.csv")
    try:
        dataset = open_data(root / "list.csv")
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert dataset.seen == len(rows) and dataset.rows["path"].is_unique().all()
    assert set(dataset.rows["split"]) <= {"train", "test"}


def saved(kind: str) -> bytes:
    data = io.BytesIO()
    Image.open(io.BytesIO(A_PICTURE)).save(data, kind)
    return data.getvalue()


NAMED_OTHERWISE = {
    "a.jfif": "JPEG",
    "b.JPE": "JPEG",
    "c": "PNG",
    "d.dat": "WEBP",
    "e.avif": "AVIF",
    "f.jp2": "JPEG2000",
    "g.heic": "JPEG",
    "h.TIFF": "TIFF",
    "i.j2k": "JPEG2000",
    "k.picture": "BMP",
    "l.bin": "GIF",
}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_the_bytes_decide_what_is_a_picture(tmp_path: Path, kind: str) -> None:
    good = {f"train/x/{name}": saved(how) for name, how in NAMED_OTHERWISE.items()}
    bad = {"train/x/film.mp4": b"\0\0\0\x18ftypmp42", "train/x/empty": b"", "train/x/list.csv": b"a,b"}
    writer = {"zip": write_zip, "tar": write_tar}.get(kind, write_folder)
    dataset = open_data(writer(tmp_path / f"x.{kind}", {**good, **bad}))
    assert set(dataset.rows["path"]) == set(good)
    assert dict(dataset.passed_over.rows()) == {
        "train/x/film.mp4": "no picture (.mp4)",
        "train/x/empty": "no picture",
        "train/x/list.csv": "no picture (.csv)",
    }
    assert hash_rows(dataset, dataset.rows, check=decode)["reason"].null_count() == len(good)


def test_heic_without_its_package_is_counted_and_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    monkeypatch.setattr("toolkit.data.sources.listing.formats", lambda: images.FORMATS)
    monkeypatch.setattr("toolkit.data.images.formats", lambda: images.FORMATS)
    folder = write_folder(tmp_path / "x", {"train/a/1.jpg": A_PICTURE, "train/a/2.HEIC": heic, "train/a/3.jpg": heic})
    dataset = open_data(folder)
    assert dataset.passed_over.rows() == [("train/a/2.HEIC", images.HEIC)]
    reasons = hash_rows(dataset, dataset.rows, check=decode)["reason"].to_list()
    assert sorted(reasons, key=str) == sorted([None, images.HEIC], key=str) and "pip install pillow-heif" in images.HEIC


def test_links_are_followed_inside_the_data_and_named_where_they_lead_out(tmp_path: Path) -> None:
    files = {"pool/1.jpg": jpeg(1), "train/a/2.jpg": jpeg(2), "shared/b/3.jpg": jpeg(3)}
    root = write_folder(tmp_path / "x", files)
    (tmp_path / "away").mkdir()
    write_folder(tmp_path / "away", {"4.jpg": jpeg(4)})
    (root / "train/a/in.jpg").symlink_to("../../pool/1.jpg")
    (root / "train/a/out.jpg").symlink_to(tmp_path / "away/4.jpg")
    (root / "train/b").symlink_to("../shared/b")
    (root / "train/c").symlink_to(tmp_path / "away")
    (root / "train/a/back").symlink_to(root)
    dataset = open_data(root)
    assert set(dataset.rows["path"]) == {"train/a/2.jpg", "train/a/in.jpg", "train/b/3.jpg"}
    assert dataset.read("train/b/3.jpg") == jpeg(3) and dataset.read("train/a/in.jpg") == jpeg(1)
    reasons = dict(dataset.passed_over.rows())
    assert {path for path, reason in reasons.items() if "outside" in reason} == {"train/a/out.jpg", "train/c"}
    assert "a link to a folder that contains it" in reasons["train/a/back"]


def test_many_links_between_folders_take_no_extra_time(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x", {f"train/{n}/1.jpg": jpeg(n) for n in range(12)})
    for one in range(12):
        for other in range(12):
            os.symlink(f"../{other}", root / f"train/{one}/to{other}")
    dataset = open_data(root)
    assert {f"train/{n}/1.jpg" for n in range(12)} <= set(dataset.rows["path"]) and len(dataset.rows) <= 24 * 12


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.integers(0, 3))
def test_any_file_name_is_found(name: str, depth: int) -> None:
    from toolkit.data.sources.resolve import Names

    path = "/".join([*("ab" * depth), name.replace("/", "").replace("\\", "") or "x"])
    if path.split("/")[-1] not in (".", ".."):
        assert Names([escape(path)]).find(path) == escape(path)
