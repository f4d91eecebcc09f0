"""Copies that were saved again, shifted or mirrored are found; unrelated pictures are not."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image
from trees import write_folder

from toolkit.cache.administration import verify
from toolkit.cli.main import cli
from toolkit.data import near_copies
from toolkit.data.manifest import Dataset, frame, hash_rows
from toolkit.data.near_copies import NearCopies, NearCopy, select_without
from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.errors import ImageError


def picture(seed: int, size: int = 32) -> Image.Image:
    """A random picture with coarse and fine structures in colour, like a photograph."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 128.0)
    for cells, strength in ((3, 60), (6, 40), (12, 30), (24, 20)):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += (np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)) / 127.5 - 1) * strength
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def flat(seed: int) -> Image.Image:
    """A black picture with a grained corner, like some crops of photographs: similar to others, but no copy."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    bright = x * np.cos(angle := rng.uniform(0.2, 1.3)) + y * np.sin(angle) > rng.uniform(26, 34)
    pixels = np.where(bright[..., None], (220, 90, 60) + rng.normal(0, 12, (32, 32, 1)), 2)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def saved(image: Image.Image, quality: int | None = None) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG") if quality is None else image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def shifted(image: Image.Image, x: int, y: int) -> Image.Image:
    padded = np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)), mode="edge")
    return Image.fromarray(padded[2 - y : 2 - y + image.height, 2 - x : 2 - x + image.width])


def data_of(train: dict[str, bytes], test: dict[str, bytes]) -> tuple[Dataset, pl.DataFrame, pl.DataFrame]:
    files = {**{f"train/{name}": data for name, data in train.items()}, **{f"test/{n}": d for n, d in test.items()}}
    rows = frame([(path, "REAL", None, path.split("/")[0]) for path in files])
    made = Dataset("made", "made", rows, files.__getitem__, "folder")
    hashed = hash_rows(made, made.rows)
    return made, hashed.filter(pl.col("split") == "train"), hashed.filter(pl.col("split") == "test")


def found(train: dict[str, bytes], test: dict[str, bytes], cache: Path) -> list[NearCopy]:
    made, train_rows, test_rows = data_of(train, test)
    copies = NearCopies(made, cache).among(train_rows, test_rows)
    assert copies is not None
    return copies


COPIES: dict[str, tuple[Callable[[Image.Image], bytes], str]] = {
    "jpeg 95": (lambda image: saved(image, 95), "saved again"),
    "jpeg 75": (lambda image: saved(image, 75), "saved again"),
    "another format": (lambda image: saved(image.quantize(200).convert("RGB")), "saved again"),
    "a pixel to the right": (lambda image: saved(shifted(image, 1, 0)), "shifted"),
    "a pixel up, as jpeg": (lambda image: saved(shifted(image, 0, -1), 90), "shifted"),
    "aslant": (lambda image: saved(shifted(image, 1, 1)), "shifted"),
    "mirrored": (lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), "mirrored"),
    "mirrored jpeg": (lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 85), "mirrored"),
    "brighter": (lambda image: saved(image.point(lambda value: min(255, value + 20))), "saved again"),
}


@pytest.mark.parametrize("size", [32, 100, 300])
@pytest.mark.parametrize("how", COPIES)
def test_a_planted_copy_is_found_with_its_original(how: str, size: int, tmp_path: Path) -> None:
    make, called = COPIES[how]
    train = {f"{seed}.png": saved(picture(seed, size)) for seed in range(12)}
    copies = found(train, {f"{seed}.png": make(picture(seed, size)) for seed in (3, 7, 50)}, tmp_path)
    assert [(one.test, one.train) for one in copies] == [(f"test/{seed}.png", f"train/{seed}.png") for seed in (3, 7)]
    if size == 32:
        assert {one.how for one in copies} == {called}


def test_unrelated_pictures_are_no_copies(tmp_path: Path) -> None:
    train = {f"{seed}.png": saved(picture(seed)) for seed in range(300)}
    assert found(train, {f"{seed}.png": saved(picture(seed)) for seed in range(300, 600)}, tmp_path) == []


def test_nearly_flat_pictures_are_no_copies_for_a_single_edge_in_the_same_place(tmp_path: Path) -> None:
    train = {f"{seed}.png": saved(flat(seed)) for seed in range(0, 80)}
    test = {f"{seed}.png": saved(flat(seed), 90) for seed in range(1000, 1040)}
    plain = {
        f"plain{value}.png": saved(Image.new("RGB", (40, 40), (value, value, value))) for value in range(0, 250, 10)
    }
    grey = saved(Image.new("RGB", (40, 40), (5, 5, 5)))
    assert found({**train, **plain}, {**test, "grey.png": grey}, tmp_path) == []


def test_equal_bytes_are_leaks_and_no_near_copies(tmp_path: Path) -> None:
    assert found({"a.png": saved(picture(1))}, {"b.png": saved(picture(1))}, tmp_path) == []


def test_what_cannot_be_decoded_is_passed_over(tmp_path: Path) -> None:
    train = {"torn.png": b"no picture", "1.png": saved(picture(1))}
    (copy,) = found(train, {"torn.png": saved(picture(2))[:40], "1.jpg": saved(picture(1), 90)}, tmp_path)
    assert str(copy) == "test/1.jpg of train/1.png, saved again"


def test_a_result_is_remembered_and_no_image_is_read_again(tmp_path: Path) -> None:
    data, train, test = data_of({"1.png": saved(picture(1))}, {"1.jpg": saved(picture(1), 90)})
    first = NearCopies(data, tmp_path).among(train, test)

    def unread(path: str) -> bytes:
        raise AssertionError(f"{path} was read again")

    again = NearCopies(Dataset("made", "made", data.rows, unread, "folder"), tmp_path).among(train, test)
    assert first == again != []
    assert [one["state"] for one in verify(tmp_path)] == ["whole"]


@pytest.mark.parametrize("another_search", [True, False])
def test_a_near_copy_that_could_not_be_read_once_is_found_the_next_time(tmp_path: Path, another_search: bool) -> None:
    data, train, test = data_of({"1.png": saved(picture(1))}, {"1.jpg": saved(picture(1), 90)})
    reachable = False

    def read(path: str) -> bytes:
        if path == "test/1.jpg" and not reachable:
            raise ImageError("input/output error")
        return data.read(path)

    flaky = Dataset("made", "made", data.rows, read, "folder")
    look = NearCopies(flaky, tmp_path)
    assert look.among(train, test) == []
    reachable = True
    found = (NearCopies(flaky, tmp_path) if another_search else look).among(train, test)
    assert [str(copy) for copy in found or []] == ["test/1.jpg of train/1.png, saved again"]


def test_a_damaged_record_is_made_again(tmp_path: Path) -> None:
    data, train, test = data_of({"1.png": saved(picture(1))}, {"1.jpg": saved(picture(1), 90)})
    first = NearCopies(data, tmp_path).among(train, test)
    (record,) = (tmp_path / near_copies.FOLDER).iterdir()
    record.write_text("{}")
    assert NearCopies(data, tmp_path).among(train, test) == first


def test_too_many_images_are_not_searched_and_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "MOST_IMAGES", 1)
    data, train, test = data_of({"1.png": saved(picture(1))}, {"1.jpg": saved(picture(1), 90)})
    assert NearCopies(data, tmp_path).among(train, test) is None
    assert near_copies.facts(None)["near_copies"] is None
    split = Split("none", train, test, test.clear(), 0)
    (line,) = near_copies.notes(NearCopies(data, tmp_path), [split])
    assert "not looked for" in line


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six training pictures a label; of eight test pictures a label, the first and the sixth are near copies."""
    files = {}
    for number, label in enumerate(("FAKE", "REAL")):
        for one in range(6):
            files[f"train/{label}/{one}.png"] = saved(picture(100 * number + one))
        for one in range(8):
            copied = {0: saved(shifted(picture(100 * number), 1, 0)), 5: saved(picture(100 * number + 5), 85)}
            files[f"test/{label}/{one}.png"] = copied.get(one, saved(picture(100 * number + 50 + one)))
    return write_folder(tmp_path / "made", files)


def test_near_copies_are_dropped_and_replaced_by_the_next_images(tree: Path, tmp_path: Path) -> None:
    data = open_data(tree)
    look = NearCopies(data, tmp_path / "cache")

    def choose(passed_over: pl.Series) -> Split:
        return select(data, "none", None, 5, also_passed_over=passed_over)

    made = select_without(look, choose)
    names = [path.split("/")[-1] for path in made.base["path"]]
    assert names == ["1.png", "2.png", "3.png", "4.png", "6.png"] * 2
    assert made.near_copies == 4 and made.leaks == 0
    assert look.among(made.train, made.base) == []


def test_data_counts_near_copies_and_names_examples(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(cli, ["data", "--data", str(tree)], catch_exceptions=False).output
    assert "4 images of the test set are near copies" in said and "test/FAKE/0.png of train/FAKE/0.png, shifted" in said
    (facts,) = json.loads(CliRunner().invoke(cli, ["data", "--data", str(tree), "--json"]).output)
    assert facts["near_copies"] == 4
    assert facts["near_copy_examples"][0] == {
        "test": "test/FAKE/0.png",
        "train": "train/FAKE/0.png",
        "how": "shifted",
    }


def test_compare_reports_near_copies_and_drops_them_on_request(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = ["--data", str(tree), "--model", "nano", "--full"]

    def said(*command: str) -> str:
        done = CliRunner().invoke(cli, [*command, *plan], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    said("embed")
    heads = ["compare", "--heads", "zero-shot"]
    kept = said(*heads)
    assert "4 test images are near copies of training images" in kept and "--drop-near-copies" in kept
    dropped = said(*heads, "--drop-near-copies")
    assert "4 near copies of training images" in dropped and "--drop-near-copies passes" not in dropped
    rows = json.loads(said(*heads, "--drop-near-copies", "--json"))
    assert {one["support"] for one in rows if one["class"] == "REAL"} == {6}


def test_natural_copies_in_cifake_are_found(shared: Path, tmp_path: Path) -> None:
    data = open_data(shared / "cifake-24k.zip")
    rows = hash_rows(data, data.rows.filter(pl.col("label") == "REAL"))
    train, test = (rows.filter(pl.col("split") == split) for split in ("train", "test"))
    copies = NearCopies(data, tmp_path).among(train, test)
    assert copies is not None
    assert 12 <= len(copies) <= 18
    assert ("test/REAL/0162 (6).jpg", "mirrored") in {(one.test, one.how) for one in copies}
