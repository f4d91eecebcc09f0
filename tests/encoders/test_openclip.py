"""An encoder gives open_clip's vectors, has an identity, and never runs code from a checkpoint."""

import os
import pickle
import socket
import threading
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from toolkit.encoders import nano, openclip
from toolkit.errors import EncoderError


@pytest.fixture(scope="module")
def shipped() -> openclip.OpenClip:
    return openclip.load(openclip.source("nano", device="cpu"))


def _name(all_at_once: threading.Barrier) -> str:
    all_at_once.wait(timeout=60)
    return threading.current_thread().name


def pictures(count: int, size: tuple[int, int]) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("size", [(32, 32), (48, 70), (1, 50)])
def test_its_vectors_are_those_of_open_clips_own_preprocessing_and_model(
    shipped: openclip.OpenClip, size: tuple[int, int]
) -> None:
    nano.register()
    model, _, preprocess = open_clip.create_model_and_transforms("nano", pretrained=str(nano.WEIGHTS))
    model.eval()
    images = pictures(4, size)
    with torch.inference_mode():
        plain = model.encode_image(torch.stack([preprocess(image) for image in images])).numpy()
        texts = model.encode_text(open_clip.get_tokenizer("nano")(["a photo of a cat."])).numpy()
    ours = shipped.embed_images(np.stack([shipped.preprocess(image) for image in images]))
    assert ours.dtype == np.float32 and np.allclose(ours, plain, atol=1e-4)
    assert np.allclose(shipped.embed_prompts(["a photo of a cat."]), texts, atol=1e-5)


def test_identity_changes_with_a_single_weight_and_with_precision(shipped: openclip.OpenClip, tmp_path: Path) -> None:
    weights = load_file(nano.WEIGHTS)
    save_file(weights, tmp_path / "same.safetensors", metadata={"saved": "again"})
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1
    save_file(weights, tmp_path / "other.safetensors")

    def identity(file: str, precision: str = "fp32") -> str:
        return openclip.load(openclip.source("nano", str(tmp_path / file), precision, "cpu")).identity

    assert identity("same.safetensors") == shipped.identity
    assert len({shipped.identity, identity("other.safetensors"), identity("same.safetensors", "bf16")}) == 3


def test_bfloat16_vectors_are_close_to_float32_ones(shipped: openclip.OpenClip) -> None:
    half = openclip.load(openclip.source("nano", precision="bf16", device="cpu"))
    pixels = np.stack([shipped.preprocess(image) for image in pictures(8, (32, 32))])
    a, b = shipped.embed_images(pixels), half.embed_images(pixels)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.995


def test_in_half_precision_vectors_follow_weights_that_change(shipped: openclip.OpenClip) -> None:
    """The weights are cast once; a step of training must not go unnoticed."""
    half = openclip.load(openclip.source("nano", precision="bf16", device="cpu"))
    pixels = np.stack([half.preprocess(image) for image in pictures(4, (32, 32))])
    before = half.embed_images(pixels)
    assert np.array_equal(before, half.embed_images(pixels))
    with torch.no_grad():
        for parameter in half.model.parameters():
            parameter.mul_(0.5)
    assert not np.allclose(before, half.embed_images(pixels), atol=1e-3)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}


def test_openai_weights_get_their_quick_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def note(*_: object, **options: object) -> None:
        asked.update(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(open_clip, "create_model", note)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderError):
        openclip.load(openclip.source("ViT-B-32"))
    assert asked["force_quick_gelu"] is True and asked["pretrained"] == "openai"


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("trapped",)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(EncoderError, match="code is never run|does not load"):
            openclip.load(openclip.source("nano", str(tmp_path / name)))
    assert not (tmp_path / "trapped").exists()


def test_a_checkpoint_of_another_model_is_one_clear_line(tmp_path: Path) -> None:
    weights = load_file(nano.WEIGHTS)
    weights = {name: tensor[:1].clone() if tensor.ndim == 4 else tensor for name, tensor in weights.items()}
    save_file(weights, tmp_path / "wrong.safetensors")
    with pytest.raises(EncoderError, match="another model's") as caught:
        openclip.load(openclip.source("nano", str(tmp_path / "wrong.safetensors")))
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(nano.WEIGHTS.read_bytes()[:5000])
    with pytest.raises(EncoderError, match="does not load") as caught:
        openclip.load(openclip.source("nano", str(tmp_path / "cut.safetensors")))
    assert "\n" not in str(caught.value)


def test_without_network_and_weights_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    with pytest.raises(EncoderError, match=r"--pretrained FILE.*--model nano"):
        openclip.load(openclip.source("ViT-B-32"))


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(EncoderError, match="ViT-B-32"):
        openclip.load(openclip.source("VitB32"))
    with pytest.raises(EncoderError, match="openai"):
        openclip.load(openclip.source("ViT-B-32", "opanai"))
    with pytest.raises(EncoderError, match="No checkpoint"):
        openclip.source("ViT-B-32", "./not/here.pt")


def test_batches_embedded_side_by_side_are_those_embedded_in_turn() -> None:
    made = openclip.load(openclip.source("nano", device="cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3, *made.image_size), dtype=np.uint8)
    in_turn, threads = [made.embed_images(batch) for batch in pixels], torch.get_num_threads()
    with made.side_by_side() as (count, model):
        together = list(model.map(made.embed_images, pixels))
    assert 1 <= count <= openclip.MOST_SIDE_BY_SIDE
    assert np.allclose(together, in_turn, atol=1e-5)
    assert torch.get_num_threads() == threads


def test_a_second_round_of_batches_starts_no_threads() -> None:
    """New threads for every slice of a million images would each leave memory behind."""
    made = openclip.load(openclip.source("nano", device="cpu"))

    def names() -> set[str]:
        with made.side_by_side() as (count, model):
            all_at_once = threading.Barrier(count)
            runs = [model.submit(_name, all_at_once) for _ in range(count)]
            return {run.result() for run in runs}

    assert names() == names()
