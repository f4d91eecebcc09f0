"""Perturbed test images: how they are changed, and the rows that they add."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from folders import without_times
from PIL import Image, ImageFilter
from trees import cifake_files, jpeg, write_folder

from toolkit.cli import main as cli
from toolkit.data import perturb
from toolkit.data.images import decode
from toolkit.data.manifest import hash_rows
from toolkit.data.perturb import parse
from toolkit.data.sources import open_data
from toolkit.errors import SelectionError

ALL = ["jpeg:75", "blur:1", "resize:0.5", "noise:4"]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data), dtype=np.float64)


@pytest.mark.parametrize("text", ALL)
def test_the_same_image_is_always_changed_in_the_same_way(text: str) -> None:
    one = parse(text)
    assert str(one) == text
    assert one.apply(jpeg(1)) == one.apply(jpeg(1)) != one.apply(jpeg(2))


def test_each_kind_equals_pillow_and_numpy() -> None:
    data = jpeg(3, size=48)
    before = decode(data)
    saved = io.BytesIO()
    before.save(saved, "JPEG", quality=40)
    assert np.array_equal(pixels(parse("jpeg:40").apply(data)), pixels(saved.getvalue()))
    blurred = before.filter(ImageFilter.GaussianBlur(2))
    assert np.array_equal(pixels(parse("blur:2").apply(data)), np.asarray(blurred))
    assert decode(parse("resize:0.5").apply(data)).size == (24, 24)
    grey = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(grey, "PNG")
    noise = pixels(parse("noise:5").apply(grey.getvalue())) - 128
    assert abs(noise.mean()) < 0.2 and noise.std() == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("text", ["jpg:75", "jpeg", "jpeg:0", "jpeg:75.5", "blur:-1", "resize:nan", "noise:x", "jpeg:"])
def test_an_invalid_perturbation_is_an_error_that_lists_valid_ones(text: str) -> None:
    with pytest.raises(SelectionError, match="jpeg:75|from"):
        parse(text)


def test_perturbed_images_are_hashed_once_by_their_new_bytes(tmp_path: Path) -> None:
    dataset = open_data(write_folder(tmp_path / "data", cifake_files(2, 2)))
    rows, one = hash_rows(dataset, dataset.rows), parse("blur:1")
    found = perturb.perturbed_rows(dataset, rows, one, tmp_path)
    expected = hash_rows(perturb.perturbed(dataset, one), dataset.rows)
    assert found["sha256"].to_list() == expected["sha256"].to_list()

    def unreadable(path: str) -> bytes:
        raise AssertionError("its key is known")

    closed = perturb.replace(dataset, read=unreadable)
    assert perturb.perturbed_rows(closed, rows, one, tmp_path).equals(found)
    (record,) = tmp_path.glob("perturbed-*.json")
    record.write_text("damaged")
    assert perturb.perturbed_rows(dataset, rows, one, tmp_path).equals(found)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("perturbed")
    write_folder(home / "data", cifake_files(6, 4))
    call(home, "embed")
    call(home, "finetune", "--epochs", "1")
    return home


def call(home: Path, *words: str) -> str:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    sizes = ["--train-per-label", "12", "--test-per-label", "5"]
    result = CliRunner().invoke(cli.cli, [words[0], *map(str, place), *sizes, *words[1:]])
    assert result.exit_code == 0, result.output
    return result.output


def test_each_encoder_and_head_gets_a_row_for_each_perturbation_beside_its_ordinary_ones(study: Path) -> None:
    call(study, "compare")
    plain = without_times(pl.read_csv(study / "results/results.csv"))
    words = [word for text in ALL for word in ("--perturb", text)]
    output = call(study, "compare", *words)
    assert "Accuracy under perturbation" in output and "jpeg:75" in output
    table = without_times(pl.read_csv(study / "results/results.csv"))
    assert table.filter(pl.col("perturbation") == "").equals(plain), "ordinary rows stay as they were"
    new = table.filter((pl.col("perturbation") != "") & (pl.col("class") == "all"))
    assert len(new) == 2 * 4 * 2 * len(ALL) and set(new["encoder"]) == {"base", "finetuned"}
    assert new.n_unique("data_hash") == 2 * len(ALL)
    verified = CliRunner().invoke(cli.cli, ["verify-results", "--results", str(study / "results")])
    assert f"{len(table)} rows" in verified.output and "0 differ" in verified.output


def test_the_second_time_no_model_is_loaded_and_the_table_is_the_same(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(study, "compare", "--perturb", "jpeg:50,noise:2")
    before = without_times(pl.read_csv(study / "results/results.csv"))

    def loaded(*_: object) -> None:
        raise AssertionError("a model was loaded though nothing was missing")

    monkeypatch.setattr("toolkit.pipeline.plan.load", loaded)
    monkeypatch.setattr("toolkit.finetuning.checkpoints.load_finetuned", loaded)
    call(study, "compare", "--perturb", "jpeg:50,noise:2")
    assert without_times(pl.read_csv(study / "results/results.csv")).equals(before)
