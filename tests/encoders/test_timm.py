"""timm:NAME is an encoder without text: timm's own features and preprocessing, from its weights or a file."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from trees import cifake_files, write_folder

from toolkit.cli.main import cli
from toolkit.encoders import openclip
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.source import source
from toolkit.errors import EncoderError

NAME = "timm:test_vit.r160_in1k"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm publishes them: random weights, with a classifier of 1,000 classes."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


@pytest.fixture(scope="module")
def encoder(published: Path) -> openclip.OpenClip:
    return openclip.load(source(NAME, str(published), device="cpu"))


def test_vectors_are_those_of_timm_itself(published: Path, encoder: openclip.OpenClip) -> None:
    plain = timm.create_model(
        "test_vit", pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(published)}
    )
    transform = create_transform(**resolve_model_data_config(plain), is_training=False)
    for size in ((200, 120), (160, 160)):  # cropped to 95 % where the size fits, too
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        with torch.no_grad():
            expected = plain.eval()(transform(image)[None]).numpy()
        assert np.allclose(encoder.embed_images(encoder.preprocess(image)[None]), expected, atol=1e-4)


def test_it_has_no_text_and_names_its_weights(encoder: openclip.OpenClip) -> None:
    assert not encoder.record.has_text and encoder.record.dimension == 64
    assert (encoder.record.model, encoder.record.pretrained) == (NAME, "model")
    assert source("timm:test_vit").pretrained == "default" and source(NAME).pretrained == "r160_in1k"


def test_blocks_are_the_class_tokens_that_timm_gives(encoder: openclip.OpenClip) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 160, 160), dtype=np.uint8)
    blocks = Blocks(encoder)
    trunk = encoder.model.visual.trunk
    with torch.no_grad():
        layers = trunk.forward_intermediates(
            encoder.pixels_to_input(pixels), return_prefix_tokens=True, intermediates_only=True
        )
    expected = np.concatenate([(t[:, 0] / t[:, 0].norm(dim=1, keepdim=True)).numpy() for _, t in layers], axis=1)
    assert np.allclose(blocks.embed_images(pixels), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm:test_vitt", "timm knows no model 'test_vitt'. Did you mean test_vit"),
        ("timm:test_vit.nobody", "has no weights 'nobody': known tags are r160_in1k"),
    ],
)
def test_a_name_that_timm_does_not_know_is_said_in_a_line(name: str, says: str, published: Path) -> None:
    with pytest.raises(EncoderError, match=says):
        openclip.load(source(name, str(published), device="cpu"))


def test_a_tag_is_part_of_the_name() -> None:
    with pytest.raises(EncoderError, match="timm:NAME.TAG"):
        source("timm:test_vit", "r160_in1k")


def test_the_tag_that_a_stored_head_names_is_the_same_source() -> None:
    """`predict` asks for the weights by what the head's record says."""
    for name in (NAME, "timm:test_vit"):
        once = source(name)
        assert source(name, once.pretrained) == once


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(EncoderError, match="another model's"):
        openclip.load(source(NAME, str(tmp_path / "resnet.safetensors"), device="cpu"))


def test_offline_its_weights_are_missed_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="not on this machine and cannot be downloaded") as caught:
        openclip.load(source(NAME, device="cpu"))
    assert "\n" not in str(caught.value)


def test_it_is_probed_and_fine_tuned_from_the_command_line(published: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "cifake", cifake_files(4, 2))
    shared = ["--data", str(data), "--model", NAME, "--pretrained", str(published), "--train-per-label", "8"]
    shared += ["--test-per-label", "2", "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    for command in (["finetune", "--epochs", "1"], ["compare", "--heads", "zero-shot,logreg"]):
        done = CliRunner().invoke(cli, [*command, *shared])
        assert done.exit_code == 0, done.output
    rows = pl.read_csv(tmp_path / "results" / "results.csv").select("encoder", "head").unique().rows()
    assert set(rows) == {("base", "logreg"), ("finetuned", "logreg"), ("finetuned", "zero-shot")}
