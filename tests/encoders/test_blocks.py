"""The blocks of an image tower are an encoder of their own, with an identity and a cache, for probes only."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from tiny import tiny_clip, tiny_source
from trees import cifake_files, write_folder

from toolkit.cache.segments import write_segment
from toolkit.cache.store import Cache, find_encoders
from toolkit.cli.main import cli
from toolkit.encoders import inside, openclip
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.inside import blocks_of
from toolkit.errors import EncoderError


def pixels(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def test_each_stage_of_nano_gives_the_mean_of_its_map_at_unit_length() -> None:
    nano = openclip.load(openclip.source("nano", device="cpu"))
    blocks, images = Blocks(nano), pixels(5, 32)
    got = blocks.embed_images(images)
    with torch.inference_mode():
        x, parts = nano.pixels_to_input(images), []
        for stage in nano.model.visual.trunk.layers:
            x = stage(x)
            mean = x.mean(dim=(2, 3))
            parts.append(mean / mean.norm(dim=1, keepdim=True))
    assert np.allclose(got, torch.cat(parts, dim=1).numpy(), atol=1e-5)
    assert got.shape == (5, blocks.record.dimension)
    assert blocks.record.identity != nano.identity == blocks.record.base_identity


def test_each_block_of_a_transformer_gives_its_class_token() -> None:
    import open_clip

    model = open_clip.create_model("ViT-B-32", pretrained=None)
    tower = model.visual
    tower.transformer.resblocks = tower.transformer.resblocks[:2]
    blocks = blocks_of(tower, "ViT-B-32")
    seen: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        tower(torch.rand(3, 3, 224, 224))
    assert [tuple(one.shape) for one in seen] == [(3, 50, 768)] * 2, "images first, then tokens"


def test_patches_add_the_mean_patch_of_each_block_but_the_last(tmp_path: Path) -> None:
    encoder, images = tiny_clip(tmp_path), pixels(3, 32)
    tokens, patches = Blocks(encoder), Blocks(encoder, "patches")
    both = patches.embed_images(images)
    first, _ = tokens_of(encoder, images)
    mean = first[:, 1:].mean(dim=1)
    assert patches.record.blocks == (32, 32, 32), "two class tokens, then one mean"
    assert np.allclose(both[:, :64], tokens.embed_images(images), atol=1e-6)
    assert np.allclose(both[:, 64:], (mean / mean.norm(dim=1, keepdim=True)).numpy(), atol=1e-5)
    assert patches.record.identity != tokens.record.identity


def tokens_of(encoder: openclip.OpenClip, images: np.ndarray) -> list[torch.Tensor]:
    """What each block of open_clip's own tower gives, `[N, T, D]`."""
    tower, seen = encoder.model.visual, []
    hooks = [block.register_forward_hook(lambda _, __, out: seen.append(out)) for block in tower.transformer.resblocks]
    with torch.inference_mode():
        tower(encoder.pixels_to_input(images))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("sees", ["blocks", "patches"])
def test_half_precision_has_every_block(tmp_path: Path, sees: str) -> None:
    exact, images = Blocks(tiny_clip(tmp_path), sees), pixels(2, 32)
    half = Blocks(openclip.load(replace(tiny_source(tmp_path), precision="bf16")), sees)
    assert half.record.blocks == exact.record.blocks
    assert np.allclose(half.embed_images(images), exact.embed_images(images), atol=0.03)


def test_registers_are_no_patches() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    trunk = timm.create_model("test_vit", num_classes=0, reg_tokens=3)
    of = inside.parts_of(SimpleNamespace(trunk=trunk), "patches", "a name")
    output = torch.randn(2, 1 + 3 + 100, 64)
    token, mean = of(output)
    assert torch.equal(token, output[:, 0]) and torch.allclose(mean, output[:, 4:].mean(dim=1))


def test_segments_of_an_earlier_version_are_read_beside_new_ones(tmp_path: Path) -> None:
    inside = Blocks(tiny_clip(tmp_path))
    vectors, keys = inside.embed_images(pixels(4, 32)), [str(n) * 64 for n in range(1, 5)]
    cache = Cache(tmp_path / "cache", inside.record)
    cache.append_images(keys[2:], vectors[2:])
    numbers = np.frombuffer(bytes.fromhex("".join(keys[:2])), np.uint8).reshape(2, 32)
    write_segment(cache.folder, "images", {"sha256": numbers}, vectors[:2], inside.record.plain())  # in float32
    read = Cache(tmp_path / "cache", inside.record).read_images(keys)
    assert np.array_equal(read[:2], vectors[:2]) and np.allclose(read[2:], vectors[2:], atol=1e-3)


def test_a_tower_without_class_token_has_no_patches() -> None:
    with pytest.raises(EncoderError, match="no class token.*--features blocks"):
        Blocks(openclip.load(openclip.source("nano", device="cpu")), "patches")


def test_the_cache_holds_blocks_in_half_precision(tmp_path: Path) -> None:
    inside = Blocks(tiny_clip(tmp_path))
    vectors, keys = inside.embed_images(pixels(3, 32)), ["1" * 64, "2" * 64, "3" * 64]
    Cache(tmp_path / "cache", inside.record).append_images(keys, vectors)
    read = Cache(tmp_path / "cache", inside.record).read_images(keys)
    assert read.dtype == np.float32 and np.allclose(read, vectors, atol=1e-3)
    assert Cache(tmp_path / "cache", inside.record).measured().bytes == 2 * vectors.shape[1]


def test_a_tower_of_another_kind_is_refused_in_a_line() -> None:
    with pytest.raises(EncoderError, match="take --features last"):
        blocks_of(torch.nn.Linear(1, 1), "strange")


def test_probes_on_blocks_have_rows_and_zero_shot_has_none(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "cifake", cifake_files(4, 2))
    shared = ["--data", str(data), "--model", "nano", "--train-per-label", "8", "--test-per-label", "2"]
    shared += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    first = CliRunner().invoke(cli, ["embed", *shared, "--features", "blocks"])
    assert first.exit_code == 0 and "images with the blocks" in first.output, first.output
    again = CliRunner().invoke(cli, ["embed", *shared, "--features", "blocks"])
    assert "Embedded 0 images" in again.output
    done = CliRunner().invoke(cli, ["compare", *shared, "--heads", "zero-shot,logreg", "--json"])
    rows = pl.read_json(io.StringIO(done.stdout))
    heads = rows.select("encoder", "head").unique().sort("encoder", "head").rows()
    assert heads == [("base", "logreg"), ("base", "zero-shot"), ("blocks", "logreg")]


def test_patches_have_rows_of_their_own(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "cifake", cifake_files(4, 2))
    source = tiny_source(tmp_path)
    shared = ["--data", str(data), "--model", source.model, "--pretrained", str(source.file), "--device", "cpu"]
    shared += ["--train-per-label", "8", "--test-per-label", "2"]
    shared += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    for features in ("blocks", "patches"):
        done = CliRunner().invoke(cli, ["embed", *shared, "--features", features])
        assert done.exit_code == 0, done.output
    assert {record.sees for record in find_encoders(tmp_path / "cache")} >= {"last layer", "blocks", "patches"}
    done = CliRunner().invoke(cli, ["compare", *shared, "--heads", "layer-probes", "--json"])
    assert set(pl.read_json(io.StringIO(done.stdout))["encoder"]) == {"base", "blocks", "patches"}
