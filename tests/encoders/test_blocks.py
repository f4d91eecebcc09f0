"""The blocks of an image tower are an encoder of their own, with an identity and a cache, for probes only."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from trees import cifake_files, write_folder

from toolkit.cli.main import cli
from toolkit.encoders import openclip
from toolkit.encoders.blocks import Blocks, blocks_of
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


def test_a_tower_of_another_kind_is_refused_in_a_line() -> None:
    with pytest.raises(EncoderError, match="leave --features out"):
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
