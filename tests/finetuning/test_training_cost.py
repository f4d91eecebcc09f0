"""What a training took stands beside its checkpoint, and was not measured where that is not known."""

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.data.sources import open_data
from toolkit.data.split import Split
from toolkit.encoders import openclip
from toolkit.finetuning import cost
from toolkit.finetuning.recipes import Grid, Recipe
from toolkit.finetuning.search import Training, make
from toolkit.pipeline.plan import silent
from toolkit.storage.records import read_record, write_record
from toolkit.storage.work import machine

PROMPTS = {"FAKE": ["a fake"], "REAL": ["a real one"]}


def training(source: openclip.Source, data: Path, selection: Split, cache: Path, recipe: Recipe) -> Training:
    record = openclip.load(source).record
    load = lambda: openclip.load(source)  # noqa: E731
    return Training(record, load, open_data(data), selection.train, "cat", PROMPTS, recipe, cache, silent)


def test_every_epoch_is_measured_and_parameters_are_counted(
    source: openclip.Source, data: Path, selection: Split, tmp_path: Path
) -> None:
    asked = training(source, data, selection, tmp_path, Recipe(epochs=2, batch_size=8))
    found = cost.read(make(asked).folder)
    assert found is not None and found.seconds == pytest.approx(sum(one or 0.0 for one in found.epochs))
    assert len(found.epochs) == 2 and min(one or 0.0 for one in found.epochs) > 0
    assert found.parameters == sum(one.numel() for one in openclip.load(source).model.parameters())
    assert found.on == machine()


def test_a_training_that_goes_on_keeps_what_its_epochs_took(
    source: openclip.Source, data: Path, selection: Split, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    asked = training(source, data, selection, tmp_path, Recipe(epochs=2, batch_size=8))
    with pytest.raises(KeyboardInterrupt):
        make(replace(asked, progress=stop))
    before = cost.read(asked.folder)
    make(asked)
    after = cost.read(asked.folder)
    assert before and after and len(before.epochs) == 1 and len(after.epochs) == 2
    assert after.epochs[0] == before.epochs[0]


def test_an_epoch_of_an_earlier_version_leaves_the_whole_unknown(tmp_path: Path) -> None:
    cost.note_epoch(tmp_path, 1, 3.0, 10, "cpu")
    found = cost.read(tmp_path)
    assert found and found.epochs == (None, 3.0) and found.seconds is None


def test_no_record_and_a_damaged_one_are_not_known(tmp_path: Path) -> None:
    assert cost.read(tmp_path) is None and cost.weights_bytes(tmp_path) is None
    (tmp_path / cost.COST).write_text("{")
    assert cost.read(tmp_path) is None


def test_interpolation_has_the_cost_of_the_training_behind_it(
    source: openclip.Source, data: Path, selection: Split, tmp_path: Path
) -> None:
    whole = training(source, data, selection, tmp_path, Recipe(epochs=1, batch_size=8))
    mixed = replace(whole, recipe=replace(whole.recipe, alpha=0.5))
    assert cost.read(make(mixed).folder) == cost.read(whole.folder) is not None


def test_a_search_for_settings_is_part_of_the_cost_and_unknown_if_a_part_is(
    source: openclip.Source, data: Path, selection: Split, tmp_path: Path
) -> None:
    recipe = Recipe(grid=Grid(epochs=(1,), learning_rates=(1.0,), alphas=(1.0,)), batch_size=8)
    asked = training(source, data, selection, tmp_path, recipe)
    folder = make(asked).folder
    parts = sorted(folder.glob("part-*.json"))
    found, took = cost.read(folder), [read_record(part)["seconds"] for part in parts]
    assert found and len(parts) > 1 and found.choosing == pytest.approx(sum(took))
    assert found.seconds == pytest.approx(sum(took) + sum(one or 0.0 for one in found.epochs))
    old = {name: value for name, value in read_record(parts[0]).items() if name != "seconds"}
    write_record(parts[0], old)
    (folder / "record.json").unlink()
    again = cost.read(make(asked).folder)
    assert again and again.choosing is None and again.seconds is None
