"""Tar shards are read by offset, and data at fsspec addresses."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from trees import cifake_files, jpeg, write_folder, write_tar, write_zip

from toolkit.data.manifest import hash_rows
from toolkit.data.sources import open_data, shard_index
from toolkit.errors import DataError, ImageError
from toolkit.storage.kept import LISTINGS

SEVERAL = {
    "train-000009.tar": ["a", "b"],
    "train-000010.tar": ["c"],
    "test-000000.tar": ["d", "sub/e"],
}


def webdataset(root: Path, facts: str) -> Path:
    """Three shards; labels are x and y in turns."""
    seed = 0
    for shard, keys in SEVERAL.items():
        files: dict[str, bytes] = {}
        for key in keys:
            seed += 1
            label = "xy"[seed % 2]
            about = {"label": label, "category": key, "width": 32}
            files[f"{key}.jpg"] = jpeg(seed)
            files[f"{key}.{facts}"] = json.dumps(about).encode() if facts == "json" else f"{label}\n".encode()
        write_tar(root / shard, files)
    return root


@pytest.mark.parametrize("facts", ["json", "cls", "txt"])
@pytest.mark.parametrize("asked", ["", "*.tar", "{train-{000009..000010},test-000000}.tar"])
def test_samples_are_grouped_by_key_and_shards_come_in_the_order_of_their_numbers(
    tmp_path: Path, facts: str, asked: str
) -> None:
    dataset = open_data(str(webdataset(tmp_path / "set", facts) / asked))
    category = {key: key if facts == "json" else None for key in "abcd"} | {"e": "sub/e" if facts == "json" else None}
    assert dataset.name == "set" and dataset.kind == "shards"
    assert dataset.rows.rows() == [
        ("test-000000.tar/d.jpg", "x", category["d"], "test"),
        ("test-000000.tar/sub/e.jpg", "y", category["e"], "test"),
        ("train-000009.tar/a.jpg", "y", category["a"], "train"),
        ("train-000009.tar/b.jpg", "x", category["b"], "train"),
        ("train-000010.tar/c.jpg", "y", category["c"], "train"),
    ]
    assert [dataset.read(path) for path in dataset.rows["path"]] == [jpeg(n) for n in (4, 5, 1, 2, 3)]


def test_a_split_in_the_json_counts_more_than_the_shards_name(tmp_path: Path) -> None:
    files = {"1.png": b"p", "1.json": b'{"label": 7, "split": "test"}', "2.jpg": b"q", "2.json": b'{"label": "8"}'}
    rows = open_data(write_tar(tmp_path / "train.tar", files)).rows
    assert rows.rows() == [("1.png", "7", None, "test"), ("2.jpg", "8", None, "train")]


def test_a_tar_of_folders_is_the_same_data_as_the_zip(tmp_path: Path) -> None:
    files = cifake_files(3, 2, (1, 10, 2))
    tarred, zipped = open_data(write_tar(tmp_path / "x.tar", files)), open_data(write_zip(tmp_path / "x.zip", files))
    assert tarred.kind == zipped.kind == "cifake"
    assert hash_rows(tarred, tarred.rows).equals(hash_rows(zipped, zipped.rows))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"1.jpg": b"p", "1.json": b'{"label": "x", "split": "holdout"}'}, "its splits are called holdout"),
        ({"1.jpg": b"p", "1.json": b"[" * 60000}, "no label.*1.jpg"),
        ({"1.jpg": b"p", "1.json": b"[1]", "1.cls": b"\n"}, "no label.*1.jpg"),
        ({"readme.txt": b"x"}, "no images"),
    ],
)
def test_samples_that_say_too_little_are_one_clear_line(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_data(write_tar(tmp_path / "shard.tar", files))


def test_hostile_members_are_left_out_and_hostile_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("../up.jpg", "/etc/abs.jpg", "good.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"1234"))
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("dev.jpg", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("good.cls")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    assert open_data(path).rows["path"].to_list() == ["good.jpg"]

    giant = tarfile.TarInfo("giant.jpg")
    giant.size = 300 << 20
    sparse = tmp_path / "test.tar"
    with sparse.open("wb") as file:  # a file with a hole, so that nobody has to write 300 MB
        file.write(giant.tobuf())
        file.truncate(512 + giant.size)
        file.seek(0, 2)
        label = tarfile.TarInfo("giant.cls")
        label.size = 1
        file.write(label.tobuf() + b"x" + bytes(511) + bytes(1024))
    dataset = open_data(sparse)
    with pytest.raises(ImageError, match="more than|larger than"):
        dataset.read("giant.jpg")


def test_a_shard_that_is_cut_off_or_compressed_or_no_tar_is_one_clear_line(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "train.tar", {"1.cls": b"x", "1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    data = whole.read_bytes()
    cases = {
        "cut.tar": data[:1400],
        "none.tar": b"not a tar at all" * 100,
        "empty.tar": b"",
        "packed.tar.gz": b"\x1f\x8b" + data,
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            open_data(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(DataError, match="No shards match"):
        open_data(str(tmp_path / "nothing-*.tar"))


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.rm("/", recursive=True) if system.find("/") else None
    yield system
    system.rm("/", recursive=True) if system.find("/") else None


def test_folders_zips_tables_and_shards_behind_an_address_are_the_same_data(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    files = cifake_files(3, 2, (1, 4))
    folder = write_folder(tmp_path / "set", files)
    local = hash_rows(open_data(folder), open_data(folder).rows)
    local.select("path", "label", "category", "split").write_csv(folder / "list.csv")
    local.select("path", "label", "category", "split").write_parquet(folder / "list.parquet")
    write_zip(tmp_path / "set.zip", files)
    write_tar(tmp_path / "set.tar", files)
    memory.put(str(folder), "/bucket/set", recursive=True)
    memory.put(str(tmp_path / "set.zip"), "/bucket/set.zip")
    memory.put(str(tmp_path / "set.tar"), "/bucket/set.tar")
    addresses = [
        f"memory://bucket/{name}" for name in ("set", "set.zip", "set.tar", "set/list.csv", "set/list.parquet")
    ]
    for address in [*addresses, f"file://{folder}", f"local://{folder}"]:
        dataset = open_data(address)
        assert hash_rows(dataset, dataset.rows).equals(local), address
        assert dataset.name in ("set", "list")


def test_shards_behind_an_address_are_read_by_offset_without_the_rest(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put(str(webdataset(tmp_path / "set", "json")), "/bucket/set", recursive=True)
    memory.put(str(write_zip(tmp_path / "x.zip", {"train/x/1.jpg": jpeg(1)})), "/bucket/x.zip")
    zipped = open_data("memory://bucket/x.zip")
    dataset = open_data("memory://bucket/set/{train,test}-*.tar")
    assert dataset.rows.rows() == open_data(tmp_path / "set").rows.rows()
    assert open_data("memory://bucket/set").rows.rows() == dataset.rows.rows()
    asked: list[int] = []
    whole = type(memory).cat_file

    def counted(self: object, path: str, start: int | None = None, end: int | None = None, **rest: object) -> bytes:
        asked.append((end or 1 << 40) - (start or 0))
        return bytes(whole(self, path, start=start, end=end, **rest))

    monkeypatch.setattr(type(memory), "cat_file", counted)
    assert dataset.read("train-000009.tar/b.jpg") == jpeg(2) and asked == [len(jpeg(2))]
    assert zipped.read("train/x/1.jpg") == jpeg(1) and len(asked) == 2 and asked[1] < len(jpeg(1)) + 256


def test_an_unreadable_address_is_one_clear_line(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe(
        "/bucket/set/list.csv", b"path,label,split\n../../secret.jpg,x,train\ngone.jpg,y,test\n/secret.jpg,y,test"
    )
    memory.pipe("/secret.jpg", jpeg(1))
    dataset = open_data("memory://bucket/set/list.csv")
    assert hash_rows(dataset, dataset.rows)["reason"].to_list() == [
        "outside the data's folder",
        "no such file",
        "outside the data's folder",
    ]
    for address, says in (("memory://nothing", "No data at"), ("nonsense://x/y.zip", "nonsense"), ("s3://", "s3://")):
        with pytest.raises(DataError, match=says) as caught:
            open_data(address)
        assert "\n" not in str(caught.value)


def test_pictures_beside_the_shards_are_counted_and_said(tmp_path: Path) -> None:
    home = webdataset(tmp_path / "set", "json")
    alone = open_data(home)
    write_folder(home, {"cats/1.jpg": jpeg(1), "dogs/2.jpg": jpeg(2), "sizes.json": b"{}"})
    dataset = open_data(home)
    assert dataset.rows.equals(alone.rows) and dataset.seen == alone.seen + 3
    assert dataset.passed_over["path"].to_list()[-3:] == ["cats/1.jpg", "dogs/2.jpg", "sizes.json"]
    assert dataset.notes[-1].startswith("Not read: 2 pictures beside the tar shards.")


def test_a_shard_in_a_folder_with_brackets(tmp_path: Path) -> None:
    place = write_tar(tmp_path / "set [old]/x.tar", {"train/a/1.jpg": jpeg(1), "test/a/2.jpg": jpeg(2)})
    assert len(open_data(place).rows) == 2


def test_an_unchanged_shard_is_walked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    really_open = shard_index.open_binary
    monkeypatch.setattr(shard_index, "open_binary", lambda place: walked.append(place) or really_open(place))
    home, cache = webdataset(tmp_path / "set", "json"), tmp_path / "cache"
    first = open_data(home, cache=cache)
    again = open_data(home, cache=cache)
    assert len(walked) == 3 and again.rows.equals(first.rows) and again.labels() == ["x", "y"]
    assert [again.read(path) for path in again.rows["path"]] == [first.read(path) for path in first.rows["path"]]
    write_tar(home / "train-000010.tar", {"z.jpg": jpeg(9), "z.cls": b"x"})
    assert open_data(home, cache=cache).rows["path"].to_list()[-1] == "train-000010.tar/z.jpg" and len(walked) == 4
    for record in (cache / LISTINGS).iterdir():
        record.write_bytes(record.read_bytes()[:-40])
    assert len(open_data(home, cache=cache).rows) == 5 and len(walked) == 7
