"""Int8 gives vectors close to float32, an encoder of its own, whatever batch an image is in."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import tiny_source
from trees import cifake_files, write_folder

from toolkit.cache.store import find_encoders
from toolkit.cli.main import cli
from toolkit.encoders import openclip
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.int8 import Int8Tower
from toolkit.errors import EncoderError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("int8")


def load(folder: Path, precision: str) -> openclip.OpenClip:
    source = tiny_source(folder)
    return openclip.load(openclip.source(source.model, str(source.file), precision, device="cpu"))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_vectors_are_close_to_float32_and_do_not_depend_on_the_batch(folder: Path) -> None:
    exact, rounded = load(folder, "fp32"), load(folder, "int8")
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    vectors = rounded.embed_images(images)
    assert 0.98 < cosines(vectors, exact.embed_images(images)).min() < 1 - 1e-7, "close, but rounded"
    assert np.array_equal(vectors[2:3], rounded.embed_images(images[2:3]))
    assert rounded.identity != exact.identity
    assert np.array_equal(rounded.embed_prompts(["a cat"]), exact.embed_prompts(["a cat"])), "texts stay in float32"


@pytest.mark.parametrize("sees", ["blocks", "patches"])
def test_blocks_are_close_to_float32_part_by_part(folder: Path, sees: str) -> None:
    exact, rounded = Blocks(load(folder, "fp32"), sees), Blocks(load(folder, "int8"), sees)
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    assert exact.record.blocks == rounded.record.blocks
    parts = len(exact.record.blocks)
    pairs = [np.split(one.embed_images(images), parts, axis=1) for one in (exact, rounded)]
    for one, other in zip(*pairs, strict=True):
        assert cosines(one, other).min() > 0.98
    both = rounded.embed_both(images)[0]
    assert np.array_equal(both, rounded.encoder.embed_images(images)), "with blocks or without"


def test_it_is_made_once_for_all_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = openclip.Int8Tower
    monkeypatch.setattr(openclip, "Int8Tower", lambda *given: made.append(given) or plain(*given))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    encoder = load(folder, "int8")
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    with encoder.side_by_side() as (count, threads):
        several = list(threads.map(encoder.embed_images, np.split(images, 3)))
    assert count == 3 and len(made) == 1
    assert np.array_equal(np.concatenate(several), encoder.embed_images(images))


def test_without_onnx_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EncoderError, match=r"pip install -e \"\.\[int8\]"):
        load(folder, "int8")


def test_no_library_speaks_of_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        encoder = load(folder, "fp32")
        caplog.clear()
        Int8Tower(encoder.model, encoder.image_size)
    assert not caplog.records


def test_a_gpu_is_refused(folder: Path) -> None:
    source = tiny_source(folder)
    with pytest.raises(EncoderError, match="--device cpu"):
        openclip.load(openclip.source(source.model, str(source.file), "int8", device="cuda"))


def test_it_embeds_into_a_cache_of_its_own_and_does_not_train(folder: Path, tmp_path: Path) -> None:
    data, source = write_folder(tmp_path / "cifake", cifake_files(4, 2)), tiny_source(folder)
    shared = ["--data", str(data), "--model", source.model, "--pretrained", str(source.file), "--device", "cpu"]
    shared += ["--train-per-label", "8", "--test-per-label", "2", "--precision", "int8"]
    shared += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(cli, ["embed", *shared])
    assert done.exit_code == 0, done.output
    assert [record.precision for record in find_encoders(tmp_path / "cache")] == ["int8"]
    refused = CliRunner().invoke(cli, ["finetune", *shared])
    assert refused.exit_code == 2 and "does not train" in refused.output
    whole = CliRunner().invoke(cli, ["run", *shared, "--heads", "zero-shot,logreg"])
    assert whole.exit_code == 0 and "does not train" in whole.output, "the rest of the study is done"
    pictures = tmp_path / "new"
    write_folder(pictures, cifake_files(1, 1))
    answers = CliRunner().invoke(cli, ["predict", str(pictures), *shared[-4:], "--device", "cpu"])
    assert answers.exit_code == 0, answers.output
