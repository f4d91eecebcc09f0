"""Checkpoints as people have them: wrapped, prefixed, misnamed, or no checkpoint at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny import CONFIG, tiny_source

from toolkit.cache.store import Cache
from toolkit.cli.main import cli
from toolkit.encoders import nano, openclip
from toolkit.errors import CacheError, EncoderError


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    return load_file(nano.WEIGHTS)


@pytest.fixture(scope="module")
def identity() -> str:
    return openclip.load(openclip.source("nano", device="cpu")).identity


def load(path: Path) -> openclip.OpenClip:
    return openclip.load(openclip.source("nano", str(path), device="cpu"))


def prefixed(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {f"{prefix}{name}": one for name, one in weights.items()}


AS_PEOPLE_SAVE_THEM: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "as it is": lambda weights: weights,
    "compiled": prefixed("_orig_mod."),
    "distributed": prefixed("module."),
    "lightning": prefixed("model."),
    "compiled in a wrapper": prefixed("module._orig_mod."),
    "wrapped twice": prefixed("model.module."),
    "its tower compiled": lambda weights: {
        name.replace("visual.", "visual._orig_mod."): one for name, one in weights.items()
    },
    "state_dict": lambda weights: {"epoch": 3, "state_dict": prefixed("module.")(weights)},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "optimizer": {"lr": 1e-3}},
    "model": lambda weights: {"model": prefixed("_orig_mod.")(weights), "step": 10},
    "nested": lambda weights: {"model": {"state_dict": weights}},
}


@pytest.mark.parametrize("how", AS_PEOPLE_SAVE_THEM)
def test_wrappers_and_prefixes_make_no_other_encoder(
    how: str, plain: dict[str, torch.Tensor], identity: str, tmp_path: Path
) -> None:
    torch.save(AS_PEOPLE_SAVE_THEM[how](plain), tmp_path / "weights.pt")
    assert load(tmp_path / "weights.pt").identity == identity


def test_safetensors_are_known_by_their_bytes_and_read_with_prefixes(
    plain: dict[str, torch.Tensor], identity: str, tmp_path: Path
) -> None:
    save_file(plain, tmp_path / "weights.bin")
    save_file(prefixed("module.")(plain), tmp_path / "weights.safetensors")
    assert load(tmp_path / "weights.bin").identity == load(tmp_path / "weights.safetensors").identity == identity


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 605157884\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (POINTER, r"a Git LFS pointer.*git lfs pull"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"<html lang='en'>404</html>", "a web page"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_that_is_no_checkpoint_is_named_by_its_kind(data: bytes, said: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(EncoderError, match=said) as caught:
        load(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_torchscript_archive_is_named_and_not_run(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__/model.py"):
            archive.writestr(f"archive/{name}", b"")
    with pytest.raises(EncoderError, match=r"TorchScript.*--pretrained openai"):
        load(tmp_path / "ViT-B-32.pt")


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "optimizer.pt")
    with pytest.raises(EncoderError, match="no weights: its entries are epoch, optimizer"):
        load(tmp_path / "optimizer.pt")


def test_weights_that_are_nan_are_refused_and_named(plain: dict[str, torch.Tensor], tmp_path: Path) -> None:
    name = next(name for name, one in plain.items() if one.is_floating_point())
    broken = {**plain, name: torch.full_like(plain[name], float("nan"))}
    torch.save(broken, tmp_path / "diverged.pt")
    with pytest.raises(EncoderError, match="NaN") as caught:
        load(tmp_path / "diverged.pt")
    assert name in str(caught.value) and "fp32" not in str(caught.value)


@pytest.mark.parametrize(("precision", "advised"), [("fp32", False), ("fp16", True)])
def test_advice_on_nan_vectors_is_not_what_is_in_use_already(precision: str, advised: bool, tmp_path: Path) -> None:
    encoder = openclip.load(openclip.source("nano", None, precision, "cpu"))
    with pytest.raises(CacheError) as caught:
        Cache(tmp_path, encoder.record).append_images(
            ["0" * 64], np.full((1, encoder.record.dimension), np.nan, np.float32)
        )
    assert ("use --precision fp32" in str(caught.value)) == advised


@pytest.mark.parametrize("place", ["vit_b_32-openai.pt", "models--timm--vit_b_32.openai/snapshots/1/weights.pt"])
def test_openais_weights_in_a_file_get_quick_gelu(place: str, tmp_path: Path) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    found = openclip.source("ViT-B-32", str(file))
    assert found.model == "ViT-B-32-quickgelu" and found.file == file.resolve()
    assert "QuickGELU" in found.notes[0]
    assert openclip.source("ViT-B-32-quickgelu", str(file)).notes == ()


def test_other_weights_in_a_file_say_which_activation_is_used_and_how_to_ask_for_the_other(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    found = openclip.source("ViT-B-32", str(tmp_path / "mine.pt"))
    assert found.model == "ViT-B-32"
    assert "GELU" in found.notes[0] and "--model ViT-B-32-quickgelu" in found.notes[0]
    assert openclip.source("nano", str(tmp_path / "mine.pt")).notes == ()


def test_the_line_is_printed(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(POINTER)
    done = CliRunner().invoke(
        cli, ["embed", "--data", "sample", "--model", "ViT-B-32", "--pretrained", str(tmp_path / "mine.pt")]
    )
    assert "--model ViT-B-32-quickgelu" in done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "open_clip_model.safetensors").write_bytes(nano.WEIGHTS.read_bytes())
    config = {"model_cfg": json.loads(nano.CONFIG.read_text()), "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}
    (made / "open_clip_config.json").write_text(json.dumps(config))
    return made


def test_a_folder_with_config_and_weights_is_a_model(folder: Path) -> None:
    made = openclip.load(openclip.source(f"local-dir:{folder}", device="cpu"))
    ours = openclip.load(openclip.source("nano", device="cpu"))
    assert made.record.weights_sha256 == ours.record.weights_sha256
    assert made.preprocessing["mean"] == [0.5, 0.5, 0.5] and made.identity != ours.identity
    assert made.source.is_source_of(made.record)


def test_another_config_beside_the_same_weights_is_another_source(folder: Path) -> None:
    before = openclip.source(f"local-dir:{folder}").called
    config = json.loads((folder / "open_clip_config.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps({**config, "preprocess_cfg": {}}))
    assert openclip.source(f"local-dir:{folder}").called != before


def test_models_of_equal_weights_and_another_number_of_heads_are_told_apart(tmp_path: Path) -> None:
    weights = tiny_source(tmp_path).file
    assert weights is not None
    made = []
    for width in (16, 32):  # of an attention head: two heads, or one
        model = tmp_path / f"of{width}"
        model.mkdir()
        (model / "open_clip_model.safetensors").write_bytes(weights.read_bytes())
        config = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "head_width": width}}
        (model / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        made.append(openclip.load(openclip.source(f"local-dir:{model}", device="cpu")))
    assert made[0].record.weights_sha256 == made[1].record.weights_sha256
    assert made[0].identity != made[1].identity


def test_of_several_files_the_one_that_open_clip_prefers_is_taken(folder: Path) -> None:
    (folder / "aaa.safetensors").touch()
    (folder / "pytorch_model.bin").touch()
    found = openclip.source(f"local-dir:{folder}").file
    assert found is not None and found.name == "open_clip_model.safetensors"


def test_a_folder_that_is_no_model_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no folder"):
        openclip.source(f"local-dir:{tmp_path / 'nowhere'}")
    with pytest.raises(EncoderError, match="leave --pretrained out"):
        openclip.source(f"local-dir:{folder}", "openai")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(EncoderError, match="no weights"):
        openclip.source(f"local-dir:{folder}")
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(EncoderError, match="model_cfg"):
        openclip.source(f"local-dir:{folder}")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(EncoderError, match=r"open_clip_config\.json"):
        openclip.source(f"local-dir:{folder}")
