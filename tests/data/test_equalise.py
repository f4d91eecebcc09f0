"""Equal footing: what --equalise does to pictures, and what the commands make of it."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image
from trees import jpeg, write_folder

from toolkit.cli import main as cli
from toolkit.data.equalise import parse_steps
from toolkit.data.images import decode
from toolkit.data.sources import Reading, open_data
from toolkit.encoders.features import file_facts
from toolkit.errors import ImageError, SelectionError


def photograph(seed: int, width: int, height: int, quality: int = 80) -> bytes:
    """A JPEG of noise with metadata of a camera."""
    pixels, data, exif = np.random.default_rng(seed).integers(0, 256, (height, width, 3)), io.BytesIO(), Image.Exif()
    exif[0x010F] = "A camera"
    Image.fromarray(pixels.astype(np.uint8)).save(data, "JPEG", quality=quality, exif=exif)
    return data.getvalue()


def tell_tale_files(train: int, test: int) -> dict[str, bytes]:
    """Pictures of one kind, noise, stored unchanged: REAL files are wider and of another format, so that files tell."""
    made, rng = {}, np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for label, width, kind in (("FAKE", 40, "PNG"), ("REAL", 72, "BMP")):
            for number in range(count):
                data = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (40, width, 3)).astype(np.uint8)).save(data, kind)
                made[f"{split}/{label}/{number}.{kind.lower()}"] = data.getvalue()
    return made


def test_pictures_of_any_size_and_codec_have_the_same_facts_afterwards() -> None:
    steps, png = parse_steps("side:32,crop:32,jpeg:90"), io.BytesIO()
    Image.new("RGBA", (50, 70), (200, 10, 10, 128)).save(png, "PNG")
    files = [steps.apply(data) for data in (photograph(1, 96, 64), jpeg(2, size=40), png.getvalue())]
    facts = [np.delete(file_facts(data), [5, 6]) for data in files]  # but bytes, which the picture decides
    assert all(np.array_equal(one, facts[0]) for one in facts)
    opened = [Image.open(io.BytesIO(data)) for data in files]
    assert all(one.size == (32, 32) and not one.getexif() for one in opened)


def test_steps_equal_pillows_own_in_their_order() -> None:
    data, expected = photograph(3, 90, 60), io.BytesIO()
    smaller = decode(data).resize((45, 30), Image.Resampling.BICUBIC).crop((12, 5, 32, 25))
    smaller.save(expected, "JPEG", quality=75, subsampling=2)
    assert parse_steps("side:30,crop:20,jpeg:75").apply(data) == expected.getvalue()
    lossless = decode(parse_steps("side:30,crop:20").apply(data))
    assert np.array_equal(np.asarray(lossless), np.asarray(smaller))


def test_a_picture_too_small_to_crop_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="40 x 40 pixels"):
        parse_steps("crop:64").apply(jpeg(1, size=40))


@pytest.mark.parametrize("text", ["", "jpg:95", "side", "side:0", "crop:3.5", "jpeg:101", "side:224;jpeg:95"])
def test_invalid_steps_are_an_error_that_says_what_is_allowed(text: str) -> None:
    with pytest.raises(SelectionError, match="--equalise"):
        parse_steps(text)


def test_equalised_data_has_a_name_of_its_own_and_other_bytes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine", tell_tale_files(2, 1))
    plain, equal = open_data(root), open_data(root, asked=Reading(equalise="side:32,jpeg:90"))
    path = plain.rows["path"][0]
    assert equal.name == "mine (side:32,jpeg:90)" and equal.rows.equals(plain.rows)
    assert equal.read(path) == parse_steps("side:32,jpeg:90").apply(plain.read(path)) != plain.read(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Results of the same pictures as they are and equalised, with what the second compare said."""
    root = tmp_path_factory.mktemp("equalised")
    write_folder(root / "mine", tell_tale_files(24, 20))
    common = f"--data {root}/mine --model nano --cache {root}/cache --results {root}/results --test-per-label 20"
    for extra in ("", " --equalise crop:32,jpeg:90"):
        for command in ("embed", "compare --heads logreg,shortcut"):
            done = CliRunner().invoke(cli.cli, f"{command} {common}{extra}".split())
            assert done.exit_code == 0, done.output
    return root, done.output


def test_rows_with_and_without_stand_side_by_side_and_the_shortcut_is_gone(compared: tuple[Path, str]) -> None:
    root, said = compared
    table = pl.read_parquet(root / "results/results.parquet").filter(pl.col("class") == "all")
    shortcut = dict(table.filter(pl.col("head") == "shortcut").select("dataset", "accuracy").iter_rows())
    assert shortcut["mine"] == 1.0 and shortcut["mine (crop:32,jpeg:90)"] < 0.75
    assert set(table.filter(pl.col("head") == "logreg")["dataset"]) == set(shortcut)
    assert table["study"].n_unique() == 2
    assert "as the files are" in said
    assert CliRunner().invoke(cli.cli, ["verify-results", "--results", f"{root}/results"]).exit_code == 0


def test_what_is_predicted_is_equalised_as_the_head_s_own_pictures_were(compared: tuple[Path, str]) -> None:
    root, _ = compared
    places = ["--cache", f"{root}/cache", "--results", f"{root}/results"]
    done = CliRunner().invoke(cli.cli, ["predict", f"{root}/mine/test/REAL/0.bmp", *places, "--json"])
    assert done.exit_code == 0, done.output
    rows = pl.read_parquet(root / "results/predictions.parquet").filter(
        (pl.col("dataset") == "mine (crop:32,jpeg:90)") & (pl.col("head") == "logreg")
    )
    mine = rows.filter(pl.col("path") == "test/REAL/0.bmp")["p_real"][0]
    said = json.loads(done.stdout)
    assert said[0]["p_real"] == pytest.approx(mine, abs=1e-9)
    assert "equalised by crop:32,jpeg:90" in done.stderr
