"""A checkpoint of an image tower alone is an encoder without text: probes have their rows, prompts have none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from trees import cifake_files, write_folder

from toolkit.cli.main import cli
from toolkit.data.sources import open_data
from toolkit.data.split import select
from toolkit.encoders import nano, openclip
from toolkit.encoders.blocks import Blocks
from toolkit.errors import EncoderError
from toolkit.pipeline.study import Study


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano's image tower as a checkpoint of its own."""
    file = tmp_path_factory.mktemp("tower") / "tower.safetensors"
    save_file({name: one for name, one in load_file(nano.WEIGHTS).items() if name.startswith("visual.")}, file)
    return file


def load(file: Path) -> openclip.OpenClip:
    return openclip.load(openclip.source("nano", str(file), device="cpu"))


def run(folder: Path, tower: Path, command: str, *more: str) -> Result:
    data = folder / "cifake"
    if not data.is_dir():
        write_folder(data, cifake_files(4, 2))
    shared = ["--data", str(data), "--model", "nano", "--pretrained", str(tower)]
    shared += ["--train-per-label", "8", "--test-per-label", "2"]
    shared += ["--cache", str(folder / "cache"), "--results", str(folder / "results")]
    return CliRunner().invoke(cli, [command, *shared, *more])


def test_its_vectors_are_those_of_the_whole_clip(tower: Path) -> None:
    whole, alone = openclip.load(openclip.source("nano", device="cpu")), load(tower)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    assert np.allclose(alone.embed_images(images), whole.embed_images(images), rtol=1e-5, atol=1e-5)
    assert np.allclose(Blocks(alone).embed_images(images), Blocks(whole).embed_images(images), rtol=1e-5, atol=1e-5)
    assert alone.identity != whole.identity and alone.record.dimension == whole.record.dimension
    assert whole.record.has_text and not alone.record.has_text


def test_its_identity_is_its_weights_and_no_random_text_tower(tower: Path) -> None:
    torch.manual_seed(1)
    first = load(tower).identity
    torch.manual_seed(2)
    assert load(tower).identity == first


def test_half_a_tower_is_refused(tower: Path, tmp_path: Path) -> None:
    weights = load_file(tower)
    weights.pop(next(iter(weights)))
    save_file(weights, tmp_path / "half.safetensors")
    with pytest.raises(EncoderError, match="missing key"):
        load(tmp_path / "half.safetensors")


def test_probes_have_their_rows_and_zero_shot_is_left_out_with_a_line(tower: Path, tmp_path: Path) -> None:
    done = run(tmp_path, tower, "embed", "--features", "blocks")
    assert done.exit_code == 0, done.output
    done = run(tmp_path, tower, "compare", "--heads", "zero-shot,logreg,layer-probes")
    assert done.exit_code == 0, done.output
    assert "zero-shot is left out: nano is an image tower alone" in " ".join(done.output.split())
    rows = pl.read_csv(tmp_path / "results" / "results.csv").select("encoder", "head").unique().rows()
    assert set(rows) == {(sees, head) for sees in ("base", "blocks") for head in ("logreg", "layer-probes")}


def test_prompts_alone_leave_no_head(tower: Path, tmp_path: Path) -> None:
    assert run(tmp_path, tower, "embed").exit_code == 0
    done = run(tmp_path, tower, "compare", "--heads", "zero-shot")
    assert done.exit_code == 2 and "No head is left" in done.output


def test_in_the_library_there_are_no_prompts(tower: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "cifake", cifake_files(4, 2))
    study = Study(data, "nano", pretrained=str(tower), train_per_label=8, test_per_label=2, cache=tmp_path / "cache")
    found = study.embed()
    assert len(found.train.X) == 16 and found.prompts == {}


def test_openais_tower_embeds_as_it_was_measured_elsewhere(shared: Path, tmp_path: Path) -> None:
    """The first images of the study, last layer and blocks, in two files of vectors that another program made."""
    file = tmp_path / "openai.safetensors"
    subprocess.run([sys.executable, str(shared / "unpack_clip_b16.py"), str(file)], check=True, capture_output=True)
    both = Blocks(openclip.load(openclip.source("ViT-B-16-quickgelu", str(file), device="cpu")))
    dataset = open_data(shared / "cifake-24k.zip")
    real = select(dataset, "cat").novel.filter(label="REAL").head(2)
    pixels = np.stack([both.prepare(dataset.read(path)) for path in real["path"]])
    last, blocks = both.embed_both(pixels)
    known, inside = np.load(shared / "clip-vit-b16-cifake.npz"), np.load(shared / "clip-vit-b16-cifake-blocks.npz")
    assert cosines(last, known["cat_x"][:2]).min() > 0.9999
    of_cats = inside["blocks"][inside["set"] == "cat"][:2]
    assert cosines(blocks.reshape(2, 12, 768), of_cats).min() > 0.9999


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    theirs = theirs.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return np.asarray((ours * theirs).sum(axis=-1) / lengths)
