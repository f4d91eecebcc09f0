"""A zip is listed once and the sample made once: what is stored is the same data, and never taken for another's."""

import os
import zipfile
from pathlib import Path

import pytest
from trees import cifake_files, jpeg, out_of_reach, write_zip

from toolkit.data.manifest import Dataset, hash_rows
from toolkit.data.sources import archive, open_data, sample
from toolkit.data.sources.assemble import Reading
from toolkit.errors import ImageError
from toolkit.storage.kept import LISTINGS

TABLE = b"file_name,label,split,camera\npictures/0.jpg,x,train,K\ngone.jpg,y,test,K\npictures/1.jpg,y,test,\n"
KINDS: dict[str, tuple[dict[str, bytes], Reading]] = {
    "cifake": (cifake_files(6, 2), Reading()),
    "a table": ({"metadata.csv": TABLE, **{f"pictures/{n}.jpg": jpeg(n) for n in range(3)}}, Reading()),
    "odd names": (
        {
            "train/a/50 %.jpg": jpeg(1),
            "train/b/\u00e9\n.jpg": jpeg(2),
            "test/a/no suffix": jpeg(3),
            "test/b/4.jpg": b"",
            "../x.jpg": jpeg(5),
            "train/a/notes.txt": b"",
        },
        Reading(),
    ),
    "a drawn split": ({f"{label}/{n}.jpg": jpeg(n) for n in range(20) for label in "ab"}, Reading(test_share=0.3)),
    "a layout": ({f"a/{n % 2}/x_{n}.jpg": jpeg(n) for n in range(6)}, Reading(layout="a/{label}/{category}_*.jpg")),
}


def facts(dataset: Dataset) -> tuple[object, ...]:
    """All that a data set says, with the hash of every image, or why it cannot be read."""
    frames = [(frame.schema, frame.rows()) for frame in (dataset.rows, dataset.passed_over)]
    told = (dataset.name, dataset.description, dataset.kind, dataset.layout, dataset.notes)
    return (*told, *frames, hash_rows(dataset, dataset.rows).select("sha256", "reason").rows())


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_opening_reads_no_names_and_is_the_same_data(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, asked = KINDS[kind]
    place = write_zip(tmp_path / "x.zip", files)
    expected = facts(open_data(place, asked=asked))
    assert facts(open_data(place, cache=tmp_path / "cache", asked=asked)) == expected
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert facts(open_data(place, cache=tmp_path / "cache", asked=asked)) == expected


def test_a_changed_zip_a_moved_one_and_another_question_are_listed_anew(tmp_path: Path) -> None:
    files = {f"{split}/{label}/{n}.jpg": jpeg(n) for n in range(4) for split in ("train", "test") for label in "ab"}
    place, cache = write_zip(tmp_path / "x.zip", files), tmp_path / "cache"
    assert len(open_data(place, cache=cache).rows) == 16
    as_layout = Reading(layout="{split}/{category}/{label}.jpg")
    assert open_data(place, cache=cache, asked=as_layout).labels() == ["0", "1", "2", "3"]
    write_zip(place, {name: data for name, data in files.items() if "3.jpg" not in name})
    assert len(open_data(place, cache=cache).rows) == 12
    before = place.stat()
    moved = write_zip(tmp_path / "y.zip", {name.replace("/a/", "/c/"): data for name, data in files.items()})
    moved.replace(place)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert open_data(place, cache=cache).labels() == ["b", "c"]
    assert len(list((cache / LISTINGS).glob("*.json"))) == 2, "one a zip and way to read it, however often it changes"


@pytest.mark.parametrize("suffix", ["json", "npy", "parquet"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_listing_is_made_anew(tmp_path: Path, suffix: str, damage: str) -> None:
    place, cache = write_zip(tmp_path / "x.zip", cifake_files(4, 2)), tmp_path / "cache"
    expected = facts(open_data(place, cache=cache))
    (file,) = (cache / LISTINGS).glob(f"*.{suffix}")
    data = file.read_bytes()
    middle = len(data) // 2
    file.write_bytes(
        data[:middle] if damage == "cut" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    )
    if damage == "gone":
        file.unlink()
    assert facts(open_data(place, cache=cache)) == expected
    assert file.read_bytes() == data, "it is stored again"


def test_a_listing_that_cannot_be_read_now_is_made_anew_and_not_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, cache = write_zip(tmp_path / "x.zip", KINDS["cifake"][0]), tmp_path / "cache"
    expected = facts(open_data(place, cache=cache))
    (record,) = (cache / LISTINGS).glob("*.json")
    with out_of_reach(record):
        assert facts(open_data(place, cache=cache)) == expected
    assert "damaged" not in caplog.text and facts(open_data(place, cache=cache)) == expected


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "x.zip", cifake_files(4, 2))
    (tmp_path / "cache").write_bytes(b"a file where the folder would be")
    assert facts(open_data(place, cache=tmp_path / "cache")) == facts(open_data(place))


def test_an_image_that_changed_behind_a_stored_listing_is_damaged(tmp_path: Path) -> None:
    """Size and time tell that a zip changed; where someone sets both back, each image's checksum does."""
    place, cache = write_zip(tmp_path / "x.zip", cifake_files(4, 2)), tmp_path / "cache"
    before, data = place.stat(), bytearray(place.read_bytes())
    open_data(place, cache=cache)
    with zipfile.ZipFile(place) as archive:
        info = archive.infolist()[0]
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 1
    place.write_bytes(data)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    known = open_data(place, cache=cache)
    with pytest.raises(ImageError, match=r"damaged in the zip|cannot be unpacked"):
        known.read(info.filename)


@pytest.fixture(scope="module")
def of_sample() -> tuple[object, ...]:
    return facts(open_data("sample"))


def test_the_sample_is_made_once(
    tmp_path: Path, of_sample: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert facts(open_data("sample", cache=tmp_path)) == of_sample
    monkeypatch.setattr(sample, "make", None)
    assert facts(open_data("sample", cache=tmp_path)) == of_sample
    monkeypatch.setattr(sample, "version", lambda _: "another")
    with pytest.raises(TypeError):  # with other packages it would be made again
        open_data("sample", cache=tmp_path)


@pytest.mark.parametrize("suffix", ["json", "bin"])
def test_a_damaged_sample_is_made_again(tmp_path: Path, of_sample: tuple[object, ...], suffix: str) -> None:
    open_data("sample", cache=tmp_path)
    file = tmp_path / LISTINGS / f"sample.{suffix}"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert facts(open_data("sample", cache=tmp_path)) == of_sample
    assert file.read_bytes() == whole and file.with_name(f"{file.name}.damaged").exists()


def test_a_listing_with_a_read_that_failed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_zip(tmp_path / "x.zip", {"train/a/no suffix": jpeg(1), "test/a/2.jpg": jpeg(2)})

    def fails(*_: int) -> bytes:
        raise OSError("the network was gone")

    with monkeypatch.context() as now:
        now.setattr(archive, "pieces_of", lambda _: fails)
        assert len(open_data(place, cache=tmp_path / "cache").rows) == 1
    assert len(open_data(place, cache=tmp_path / "cache").rows) == 2
