"""A small CIFAKE, its split without cats, and a tiny CLIP to fine-tune."""

from pathlib import Path

import pytest
from tiny import tiny_source
from trees import cifake_files, write_folder

from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.encoders import openclip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "cifake", cifake_files(4, 2))


@pytest.fixture(scope="module")
def selection(data: Path) -> Split:
    return select(open_data(data), "cat", 12, 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> openclip.Source:
    return tiny_source(tmp_path_factory.mktemp("tiny"))
