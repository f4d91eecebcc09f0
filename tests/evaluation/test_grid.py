"""The grid scores an encoder on a novel category only if its record proves that it never saw it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder
from places import ROOT
from trees import cifake_files, write_folder

from toolkit.cache.embedding import embed_images, embed_prompts
from toolkit.cache.store import Cache
from toolkit.data.labels import Labels
from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.encoders.record import EncoderRecord, TrainedOn
from toolkit.errors import MissingEmbeddings, SelectionError
from toolkit.evaluation.grid import Settings, require_unseen
from toolkit.pipeline.compare import compare_split as compare

PROMPTS = {"FAKE": ["fake"], "REAL": ["real"]}
LABELS = Labels.of(["FAKE", "REAL"])
SETTINGS = Settings("made", LABELS, PROMPTS, train_per_label=12, test_per_label=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Cache]:
    home = tmp_path_factory.mktemp("grid")
    dataset = open_data(write_folder(home / "cifake", cifake_files(8, 6)))
    selection, encoder = select(dataset, "cat", 12, 5), FakeEncoder()
    cache = Cache(home / "cache", encoder.record)
    embed_images(dataset, selection.rows(), lambda: encoder, cache)
    embed_prompts(["fake", "real"], lambda: encoder, cache)
    return selection, cache


def test_the_grid_has_a_prediction_for_each_image_and_head(made: tuple[Split, Cache]) -> None:
    selection, cache = made
    done = compare(selection, [cache], SETTINGS)
    assert len(done.predictions) == 3 * (10 + 10)
    assert len(done.table) == 3 * 2 * 3
    assert set(done.heads) == {(cache.record.identity, name) for name in SETTINGS.heads}
    best = done.table.filter(pl.col("p_best").is_null() & (pl.col("class") == "all"))
    assert best["test"].sort().to_list() == ["base", "novel"]


def test_heads_see_training_rows_alone(made: tuple[Split, Cache]) -> None:
    """Other test labels must not move a single probability."""
    selection, cache = made
    turned = selection.novel.with_columns(label=pl.lit("FAKE"))
    other = Split(selection.held_out, selection.train, selection.base, turned, 0)
    first, second = (compare(one, [cache], SETTINGS).predictions["p_real"] for one in (selection, other))
    assert np.array_equal(first, second)


def test_comparing_imports_no_model_code(made: tuple[Split, Cache]) -> None:
    """The heads are fitted in a process of its own, on vectors from the cache."""
    code = (
        "import sys; from pathlib import Path\n"
        "from toolkit.cache.store import Cache, find_encoders; from toolkit.evaluation.grid import Settings\n"
        "from toolkit.data.labels import Labels; from toolkit.pipeline.compare import compare_split\n"
        "from toolkit.data.split import select; from toolkit.data.sources import open_data\n"
        "home = Path(sys.argv[1]); (record,) = find_encoders(home / 'cache')\n"
        "settings = Settings('made', Labels.of(['FAKE', 'REAL']), {'FAKE': ['fake'], 'REAL': ['real']})\n"
        "split = select(open_data(home / 'cifake'), 'cat', 12, 5)\n"
        "done = compare_split(split, [Cache(home / 'cache', record)], settings)\n"
        "print(len(done.predictions), sorted({'torch', 'open_clip'} & set(sys.modules)))\n"
    )
    home, root = made[1].folder.parents[1], ROOT
    done = subprocess.run([sys.executable, "-c", code, home], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "60 []"


def finetuned(selection: Split, **changes: Any) -> EncoderRecord:
    saw = {"held_out": selection.held_out, "train_sha256": selection.train_sha256()}
    saw |= {"train_categories": tuple(sorted(selection.train["category"].unique())), **changes}
    trained = TrainedOn("b" * 16, "c" * 16, "study", {}, 0, train_rows=len(selection.train), **saw)
    return replace(FakeEncoder("f" * 16).record, trained_on=trained)


def test_an_encoder_fine_tuned_on_exactly_these_rows_is_accepted(made: tuple[Split, Cache]) -> None:
    require_unseen(finetuned(made[0]), made[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"held_out": "dog"},
        {"held_out": "none"},
        {"train_sha256": "0" * 64},
        {"train_sha256": ""},
        {"train_categories": ("cat", "dog")},
    ],
)
def test_an_encoder_that_saw_something_else_is_refused(made: tuple[Split, Cache], changes: dict[str, object]) -> None:
    with pytest.raises(SelectionError, match="finetune --split cat"):
        require_unseen(finetuned(made[0], **changes), made[0])


def test_vectors_that_are_not_there_are_an_error(made: tuple[Split, Cache], tmp_path: Path) -> None:
    with pytest.raises(MissingEmbeddings, match="embed"):
        compare(made[0], [Cache(tmp_path, FakeEncoder().record)], SETTINGS)


def test_the_table_names_its_data_settings_and_code(made: tuple[Split, Cache]) -> None:
    selection, cache = made
    first = compare(selection, [cache], SETTINGS).table
    second = compare(selection, [cache], Settings("made", LABELS, PROMPTS, choose_by="folds")).table
    assert first["data_hash"][0] == second["data_hash"][0]
    assert first["config_hash"][0] != second["config_hash"][0]
    assert first["train_rows"].unique().to_list() == [24]


def test_holding_out_each_category_in_turn_gives_what_each_gives_alone(tmp_path: Path) -> None:
    """One cache object serves all comparisons, and what it remembers changes no score."""
    dataset = open_data(write_folder(tmp_path / "cifake", cifake_files(8, 6)))
    encoder = FakeEncoder()
    selections = [select(dataset, category, None, None) for category in dataset.categories()]
    shared = Cache(tmp_path / "cache", encoder.record)
    embed_images(dataset, pl.concat([one.rows() for one in selections]), lambda: encoder, shared)
    embed_prompts(["fake", "real"], lambda: encoder, shared)
    for selection in selections:
        together = compare(selection, [shared], SETTINGS).predictions
        alone = compare(selection, [Cache(tmp_path / "cache", encoder.record)], SETTINGS).predictions
        assert together.drop("p_real").equals(alone.drop("p_real"))
        assert np.allclose(together["p_real"], alone["p_real"], atol=1e-5)
