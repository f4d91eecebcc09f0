"""`data`: the description of data sets, and CIFAKE from Kaggle."""

import io
import json
import socket
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from trees import cifake_files, jpeg, write_folder, write_zip

from toolkit.cli import main as cli
from toolkit.data import download
from toolkit.data.sources import open_data
from toolkit.errors import DataError
from toolkit.evaluation import inventory


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words])


def test_images_are_counted_by_split_label_and_category(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "my.zip", cifake_files(3, 2))
    facts = json.loads(call("data", "--data", archive, "--cache", tmp_path / "cache", "--json").stdout)[0]
    assert (facts["name"], facts["images"], facts["labels"]) == ("my", 40, ["FAKE", "REAL"])
    assert facts["categories"] == ["airplane", "automobile", "cat", "dog"]
    assert {(one["split"], one["label"], one["category"], one["images"]) for one in facts["counts"]} == {
        (split, label, category, images)
        for split, images in (("train", 3), ("test", 2))
        for label in ("FAKE", "REAL")
        for category in facts["categories"]
    }
    assert [facts[name] for name in ("duplicates", "leaks", "contradictions", "unreadable")] == [0, 0, 0, 0]


def test_duplicates_leaks_and_contradictions_are_told_apart(tmp_path: Path) -> None:
    files = {
        **{f"train/REAL/{n}.jpg": jpeg(n) for n in (1, 2)},
        "train/REAL/again.jpg": jpeg(1),
        "train/FAKE/2.jpg": jpeg(2),
        "train/FAKE/bad.jpg": b"is read, and only decoding would fail",
        "test/REAL/1.jpg": jpeg(1),
        "test/FAKE/1.jpg": jpeg(1),
        "test/FAKE/9.jpg": jpeg(9),
    }
    facts = inventory.describe(open_data(write_folder(tmp_path / "d", files)))
    assert (facts["duplicates"], facts["leaks"], facts["contradictions"]) == (1, 2, 2)
    output = call("data", "--data", tmp_path / "d", "--cache", tmp_path / "cache").output
    assert "1 images are copies" in output and "2 images of the test set are also in train" in output
    assert [line.split() for line in output.splitlines() if line.strip().startswith("all")] == [
        ["all", "2", "3", "2", "1"]
    ]


def test_without_data_it_lists_the_standard_places_and_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data/cifake", cifake_files(2, 2))
    monkeypatch.chdir(tmp_path)
    assert [one["name"] for one in json.loads(call("data", "--json").stdout)] == ["cifake", "sample"]


def test_what_gives_the_label_away_is_said(tmp_path: Path) -> None:
    def png(seed: int) -> bytes:
        data = io.BytesIO()
        Image.open(io.BytesIO(jpeg(seed))).save(data, "PNG")
        return data.getvalue()

    files = {
        f"{split}/{label}/{n}.jpg": (jpeg if label == "REAL" else png)(1000 * part + n)
        for part, split in enumerate(("train", "test"))
        for label in ("REAL", "FAKE")
        for n in range(12)
    }
    place = ["--data", write_folder(tmp_path / "d", files), "--cache", tmp_path / "cache"]
    output = call("data", *place).output
    assert "Careful: the label shows in the files" in output
    assert json.loads(call("data", *place, "--json").stdout)[0]["careful"] in output


def test_the_part_of_cifake_beside_the_project_is_what_its_readme_says(shared: Path) -> None:
    facts = inventory.describe(open_data(shared / "cifake-24k.zip"))
    assert facts["images"] == 24_000 and len(facts["categories"]) == 10 and facts["contradictions"] == 0
    assert {one["images"] for one in facts["counts"]} == {1000, 200}
    assert facts["leaks"] > 0 and facts["duplicates"] > 0


SMALL = {("train", "REAL"): 8, ("train", "FAKE"): 8, ("test", "REAL"): 4, ("test", "FAKE"): 4}


class FakeKaggle:
    """Writes CIFAKE to the given folder, after failing a given number of times."""

    def __init__(self, deaths: int = 0, train: int = 2):
        self.deaths, self.train, self.calls = deaths, train, 0

    def __call__(self, handle: str, keep: Path) -> Path:
        self.calls += 1
        (keep / "part").write_text("half")
        if self.calls <= self.deaths:
            raise ConnectionError("reset by peer\nand more")
        assert handle == "birdy654/cifake-real-and-ai-generated-synthetic-images"
        return write_folder(keep / "datasets/v3", cifake_files(self.train, 1))


def test_cifake_appears_whole_and_is_not_downloaded_again(tmp_path: Path) -> None:
    client, target = FakeKaggle(), tmp_path / "data/cifake"
    assert download.download_cifake(target, client, SMALL)
    assert open_data(target).kind == "cifake" and [path.name for path in target.parent.iterdir()] == ["cifake"]
    assert not download.download_cifake(target, client, SMALL) and client.calls == 1


def test_an_interrupted_download_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    client, target = FakeKaggle(deaths=1), tmp_path / "cifake"
    with pytest.raises(DataError, match=r"\(reset by peer\): the same command goes on\. By hand: .*data/cifake.zip"):
        download.download_cifake(target, client, SMALL)
    assert (tmp_path / ".cifake.download/part").exists() and not target.exists()
    download.download_cifake(target, client, SMALL)
    assert target.exists()


def test_an_incomplete_download_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 of 8 images in train/REAL"):
        download.download_cifake(tmp_path / "cifake", FakeKaggle(train=1), SMALL)
    assert not (tmp_path / "cifake").exists()
    write_folder(tmp_path / "other", {"train/REAL/a.jpg": b"", "train/FAKE/a.jpg": b""})
    with pytest.raises(DataError, match="not the whole of CIFAKE"):
        download.download_cifake(tmp_path / "other", FakeKaggle(), SMALL)


def test_without_a_network_it_is_one_line_with_the_way_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("unreachable")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    result = call("data", "download", "cifake", "--to", tmp_path / "cifake")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert "no network" in result.stderr and "https://www.kaggle.com/datasets/birdy654/" in result.stderr


def tree_with_odd_files(home: Path) -> Path:
    """Sixteen pictures, of which one is cut off, and three files that are not used."""
    places = [f"{split}/{label}" for split in ("train", "test") for label in ("a", "bb")]
    files = {f"{place}/{n}.jpg": jpeg(10 * number + n) for number, place in enumerate(places) for n in range(4)}
    odd = {"train/a/._0.jpg": b"junk", "train/a/notes.txt": b"hello", "elsewhere/b.jpg": jpeg(99)}
    return write_folder(home / "odd", {**files, **odd, "train/a/0.jpg": jpeg(5)[:300]})


REASONS = {
    "left by a Mac": "train/a/._0.jpg",
    "no picture (.txt)": "train/a/notes.txt",
    "neither in train nor in test": "elsewhere/b.jpg",
}


def test_seen_is_used_and_skipped_by_reason_with_an_example(tmp_path: Path) -> None:
    place = ["--data", tree_with_odd_files(tmp_path), "--cache", tmp_path / "cache"]
    (facts,) = json.loads(call("data", *place, "--json").stdout)
    assert (facts["seen"], facts["used"], facts["images"], facts["unreadable"]) == (19, 15, 16, 1)
    assert facts["seen"] == facts["used"] + sum(one["count"] for one in facts["skipped"])
    found = {one["reason"]: one["example"] for one in facts["skipped"]}
    assert {reason: found[reason] for reason in REASONS} == REASONS and len(found) == 4
    output = call("data", *place).output
    assert output.splitlines()[0].endswith("read as split/label: 16 images")
    assert "19 files seen = 15 images used + 4 not used" in output
    assert all(f"1 {reason} ({example})" in output for reason, example in found.items())


def test_embed_says_what_it_passed_over_and_lists_it(tmp_path: Path) -> None:
    place = ["--data", tree_with_odd_files(tmp_path), "--cache", tmp_path / "cache", "--results", tmp_path / "results"]
    result = call("embed", *place, "--model", "nano", "--full", "--json")
    assert result.exit_code == 2 and "Passed over 3 files: 1 left by a Mac (train/a/._0.jpg)" in result.stderr
    listed = dict(pl.read_csv(tmp_path / "results/skipped.csv").select("path", "reason").rows())
    assert {reason: path for path, reason in listed.items() if reason in REASONS} == REASONS
    assert "not a readable image" in listed["train/a/0.jpg"] and len(listed) == 4
    (tmp_path / "odd/train/a/0.jpg").unlink()
    facts = json.loads(call("embed", *place, "--model", "nano", "--full", "--json").stdout)
    assert facts["skipped"] == 0
    assert {one["reason"]: one["example"] for one in facts["passed_over"]} == REASONS


def test_where_nothing_can_be_read_the_first_is_named(tmp_path: Path) -> None:
    lines = "".join(f"{s}/{n}.jpg,{n},{s}\n" for s in ("train", "test") for n in ("a", "b"))
    (tmp_path / "list.csv").write_text(f"path,label,split\n{lines}")
    place = ["--data", tmp_path / "list.csv", "--cache", tmp_path / "cache", "--results", tmp_path / "results"]
    result = call("embed", *place, "--model", "nano")
    assert result.exit_code == 2 and "4 images are listed and none could be read" in result.stderr
    assert "The first is train/a.jpg: no such file" in result.stderr
    assert pl.read_csv(tmp_path / "results/skipped.csv").height == 4
    result = call("data", *place)
    assert result.exit_code == 2 and "none of 4 images can be read: no such file" in result.stderr


def test_how_data_is_read_can_be_said_outright(tmp_path: Path) -> None:
    names = [f"x/{label}.{split}.{n}.jpg" for label in ("a", "bb") for split in ("train", "dev") for n in range(3)]
    files = {name: jpeg(number) for number, name in enumerate(names)}
    words = ["--data", write_folder(tmp_path / "d", files), "--cache", tmp_path / "cache", "--json"]
    (facts,) = json.loads(call("data", *words, "--layout", "{label}.{split}.*").stdout)
    assert (
        facts["labels"] == ["a", "bb"] and facts["used"] == 12 and "dev is used as the test split" in facts["notes"][0]
    )
    (facts,) = json.loads(call("data", *words, "--layout", "{label}.*", "--test-share", "0.5").stdout)
    assert {one["split"] for one in facts["counts"]} == {"train", "test"}
    result = call("data", *words, "--columns", "kind=x")
    assert result.exit_code == 2 and "--columns kind=x is not path=COLUMN,label=COLUMN" in result.stderr
