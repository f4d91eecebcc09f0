"""Weights and data sets from a hub, which here is our own on loopback."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import open_clip
import polars as pl
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from hub import Hub, serving
from places import ROOT
from safetensors.torch import save
from trees import cifake_files, jpeg, write_folder

from toolkit.cli.main import cli

WEIGHTS = "open_clip_model.safetensors"
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESSING = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """A model as open_clip publishes one: its config and its weights."""
    torch.manual_seed(0)
    model = open_clip.CLIP(TINY["embed_dim"], TINY["vision_cfg"], TINY["text_cfg"])
    config = {"model_cfg": TINY, "preprocess_cfg": PREPROCESSING}
    return {"open_clip_config.json": json.dumps(config).encode(), WEIGHTS: save(model.state_dict())}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A data set as the hub has them: a Parquet file a split."""
    home, shards = tmp_path_factory.mktemp("shards"), {}
    kind = pl.Struct({"bytes": pl.Binary, "path": pl.String})
    for first, split in enumerate(("train", "test")):
        images = [{"bytes": jpeg(100 * first + n, ("fake", "real")[n % 2]), "path": f"{n}.jpg"} for n in range(8)]
        labels = [("fake", "real")[n % 2] for n in range(8)]
        frame = pl.DataFrame({"image": pl.Series(images, dtype=kind), "label": labels})
        frame.write_parquet(home / "one.parquet")
        shards[f"data/{split}-00000-of-00001.parquet"] = (home / "one.parquet").read_bytes()
    return shards


@pytest.fixture
def hub(files: dict[str, bytes], shards: dict[str, bytes]) -> Hub:
    return Hub({"owner/tiny": files, "datasets/owner/pictures": shards})


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The hub's client in this process: an empty cache, no waiting between attempts, small chunks."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    return monkeypatch


def embed(
    hub: Hub, client: pytest.MonkeyPatch, home: Path, data: str | None = None, model: str = "hf-hub:owner/tiny"
) -> Result:
    """`embed` in this process, from nothing but what the client has downloaded before."""
    from huggingface_hub import constants

    client.setenv("HF_ENDPOINT", hub.url)
    client.setattr(constants, "ENDPOINT", hub.url)
    client.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    if data is None and not (home / "cifake").is_dir():
        write_folder(home / "cifake", cifake_files(2, 1))
    options = ["--data", data or str(home / "cifake"), "--train-per-label", "2", "--test-per-label", "1"]
    options += ["--model", model]
    cache = home / f"cache-{len(list(home.glob('cache-*')))}"
    cache.mkdir()
    return CliRunner().invoke(cli, ["embed", *options, "--cache", str(cache), "--results", str(home / "results")])


def on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """The exit code, and what a terminal 120 characters wide would show."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    started, shown = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment), b""
    os.close(theirs)
    with suppress(OSError):  # Linux says so where the other end is closed
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    return started.wait(), shown.decode()


def online_again(client: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    client.setenv("HF_HUB_OFFLINE", "")
    client.setattr(constants, "HF_HUB_OFFLINE", False)


def is_one_line(done: Result, says: str) -> bool:
    said = [line for line in done.stderr.strip().splitlines() if "Fetching" not in line]  # the client's bar
    return done.exit_code == 2 and len(said) == 1 and said[0].startswith("Error: ") and says in said[0]


def test_the_first_run_downloads_with_a_bar_and_the_second_needs_no_network(
    hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As users have it: the environment says where the hub is, in a process of its own on a terminal."""
    environment = {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = ["embed", "--data", "hf:owner/pictures", "--model", "hf-hub:owner/tiny", "--train-per-label", "2"]
    command += ["--test-per-label", "2", "--results", str(tmp_path / "results"), "--cache", str(tmp_path / "first")]
    with serving(hub):
        environment = {**os.environ, **environment, "HF_ENDPOINT": hub.url}
        status, shown = on_a_terminal([sys.executable, str(ROOT / "cli.py"), *command], environment)
    assert status == 0 and "open_clip_model.safetensors: 100%" in shown, shown
    assert {WEIGHTS, "data/train-00000-of-00001.parquet"} < {name for name, _ in hub.asked}
    second = embed(hub, client, tmp_path, "hf:owner/pictures")  # nobody answers there any more
    assert second.exit_code == 0, second.output


def test_a_connection_that_breaks_for_a_moment_is_taken_up_where_it_was(
    hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.cut[WEIGHTS] = [1 << 20]
    with serving(hub):
        assert embed(hub, client, tmp_path).exit_code == 0
    starts = [start for name, start in hub.asked if name == WEIGHTS]
    assert starts[0] == 0 and 0 < starts[1] <= 1 << 20 and len(starts) == 2


def test_one_that_stays_broken_ends_in_a_line_and_the_next_run_begins_anew(
    hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.cut[WEIGHTS] = [1 << 20, *[0] * 50]
    with serving(hub):
        broken = embed(hub, client, tmp_path)
        assert is_one_line(broken, "The weights of hf-hub:owner/tiny"), broken.output
        hub.cut.clear()
        whole = embed(hub, client, tmp_path)
    assert whole.exit_code == 0 and "images and 2 prompts; 0 images were in the cache" in whole.output


def test_a_model_that_is_not_there_is_named_in_a_line(hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.repos.pop("owner/tiny")
    with serving(hub):
        assert is_one_line(embed(hub, client, tmp_path), "hf-hub:owner/tiny")


def test_half_a_data_set_is_never_taken_for_the_whole(hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    test_split = "data/test-00000-of-00001.parquet"
    hub.cut[test_split] = [0] * 50
    with serving(hub):
        done = embed(hub, client, tmp_path, "hf:owner/pictures", "nano")
        assert is_one_line(done, "cannot be had from here"), done.output
    offline = embed(hub, client, tmp_path, "hf:owner/pictures", "nano")
    assert is_one_line(offline, "cannot be had from here"), offline.output
    online_again(client)
    hub.cut.clear()
    hub.asked.clear()
    with serving(hub):
        whole = embed(hub, client, tmp_path, "hf:owner/pictures", "nano")
    assert whole.exit_code == 0 and "16 images" in whole.output
    assert [name for name, _ in hub.asked] == [test_split], "what came whole before is not fetched again"


def test_timms_towers_come_from_the_same_hub(hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.repos["timm/test_vit.r160_in1k"] = {"model.safetensors": save(timm.create_model("test_vit").state_dict())}
    with serving(hub):
        first = embed(hub, client, tmp_path, model="timm:test_vit")
    assert first.exit_code == 0 and "0 images were in the cache" in first.output, first.output
    second = embed(hub, client, tmp_path, model="timm:test_vit")
    assert second.exit_code == 0 and "0 images were in the cache" in second.output, second.output
