"""Embedding from end to end: one pass for blocks and last layer, and one folder for the same weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trees import cifake_files, write_folder

from toolkit.cache.store import Cache, find_encoders
from toolkit.data.sources import open_data
from toolkit.encoders import nano, openclip
from toolkit.encoders.blocks import Blocks
from toolkit.errors import EncoderError
from toolkit.pipeline import plan as plans
from toolkit.pipeline.embed import embed
from toolkit.pipeline.plan import Plan, make_plan


def planned(home: Path, weights: Path | None = None) -> Plan:
    data = home / "cifake"
    if not data.exists():
        write_folder(data, cifake_files(4, 2))
    source = openclip.source("nano", str(weights) if weights else None, device="cpu")
    places = {"cache": home / "cache", "results": home / "results"}
    return make_plan(open_data(data), source, split=("cat",), train_per_label=8, test_per_label=2, **places)


def test_blocks_come_out_of_the_same_pass_as_the_last_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    forward = openclip.OpenClip.pixels_to_input
    monkeypatch.setattr(
        openclip.OpenClip, "pixels_to_input", lambda self, pixels: passes.append(len(pixels)) or forward(self, pixels)
    )
    plan = planned(tmp_path)
    done = embed(plan, inside="blocks")
    keys = done.splits[0].rows()["sha256"].to_list()
    assert sum(passes) == len(set(keys)) + 1, "each image once, and one that says how wide the blocks are"
    (record,) = find_encoders(plan.cache, lambda one: one.sees == "blocks")
    assert sum(record.blocks) == record.dimension and len(record.blocks) == 6

    encoder = plan.load()
    pixels = np.stack([encoder.prepare(plan.dataset.read(path)) for path in done.splits[0].rows()["path"]])
    assert np.allclose(done.cache.read_images(keys), encoder.embed_images(pixels), atol=1e-5)
    stored = Cache(plan.cache, record).read_images(keys)
    assert np.allclose(stored, Blocks(encoder).embed_images(pixels), atol=1e-3), "half precision"


def test_blocks_that_are_asked_for_later_leave_the_last_layer_as_it_is(tmp_path: Path) -> None:
    first = embed(planned(tmp_path))
    segments = sorted(first.cache.folder.glob("images-*.h5"))
    second = embed(planned(tmp_path), inside="blocks")
    assert second.embedded == first.embedded and sorted(first.cache.folder.glob("images-*.h5")) == segments
    assert embed(planned(tmp_path), inside="blocks").embedded == 0


def test_the_same_weights_in_another_file_are_found_and_share_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed(planned(tmp_path))
    other = tmp_path / "the-same.pt"
    torch.save(load_file(nano.WEIGHTS), other)
    second = embed(planned(tmp_path, other))
    assert (second.embedded, second.cached) == (0, first.embedded)
    assert second.cache.folder == first.cache.folder and len(find_encoders(tmp_path / "cache")) == 1

    def loaded(_: object) -> None:
        raise AssertionError("a model was loaded, though its weights are known under both names")

    monkeypatch.setattr(plans, "load", loaded)
    assert embed(planned(tmp_path, other)).embedded == embed(planned(tmp_path)).embedded == 0


def test_other_weights_under_a_known_name_are_not_mixed_with_the_old_ones(tmp_path: Path) -> None:
    """A hub's model may get new weights, and its library another preparation of images."""
    plan = planned(tmp_path)
    old = replace(plan.load().record, identity="0" * 16)
    Cache(plan.cache, old).append_images(["ab" * 32], np.ones((1, old.dimension), np.float32))
    with pytest.raises(EncoderError, match=f"cache remove {old.identity} --cache"):
        embed(plan)
    assert Cache(plan.cache, old).count_images() == 1
