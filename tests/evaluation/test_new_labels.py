"""Base and new classes: labels are held out, and each part is tested among its own labels (Zhou et al. 2022)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference
from trees import coloured_files, write_folder

from toolkit.cache.embedding import embed_images, embed_prompts
from toolkit.cache.store import Cache
from toolkit.data.held_out import held_out_values, new_labels, what_is_held_out
from toolkit.data.labels import Labels
from toolkit.data.manifest import Dataset
from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.encoders.record import TrainedOn
from toolkit.errors import SelectionError
from toolkit.evaluation import left_out
from toolkit.evaluation.grid import Comparison, Settings, require_unseen
from toolkit.evaluation.scoring import rescore
from toolkit.heads.base import unit
from toolkit.pipeline.compare import compare_split

LABELS = ("ant", "bee", "cow", "dog", "elk")
PROMPTS = {label: [f"a photo of a {label}."] for label in LABELS}
BASE, NEW = LABELS[:3], LABELS[3:]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(write_folder(tmp_path_factory.mktemp("data"), coloured_files(LABELS, 6, 5)))


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return select(dataset, "half", 6, 5, by="label")


@pytest.fixture(scope="module")
def cache(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    encoder = FakeEncoder()
    filled = Cache(tmp_path_factory.mktemp("cache"), encoder.record)
    embed_images(dataset, split.rows(), lambda: encoder, filled)
    embed_prompts([text for texts in PROMPTS.values() for text in texts], lambda: encoder, filled)
    return filled


@pytest.fixture(scope="module")
def compared(split: Split, cache: Cache) -> Comparison:
    settings = Settings("made", Labels.of(LABELS), PROMPTS, ("zero-shot", "logreg"), "folds")
    return compare_split(split, [cache], settings)


def test_half_of_the_sorted_labels_train_and_the_others_are_new(split: Split) -> None:
    assert set(split.train["label"]) == set(split.base["label"]) == set(BASE)
    assert set(split.novel["label"]) == set(split.new_labels) == set(NEW)


def test_a_user_is_told_that_half_of_the_labels_can_be_held_out_and_how(dataset: Dataset) -> None:
    assert "--split-by label --split half" in str(what_is_held_out(dataset, ["none"]))
    with pytest.raises(SelectionError, match="say --split-by label --split half"):
        held_out_values(dataset, ["half"])


@given(st.lists(st.text("abc", min_size=1), min_size=4, max_size=30, unique=True))
def test_base_has_one_more_label_where_their_number_is_odd(labels: list[str]) -> None:
    new = new_labels(labels, "half", "label")
    base = set(labels) - set(new)
    assert len(base) - len(new) == len(labels) % 2 and max(base) < min(new)


def test_new_images_are_told_apart_among_new_prompts_alone(split: Split, cache: Cache, compared: Comparison) -> None:
    for rows, labels in ((split.base, BASE), (split.novel, NEW)):
        prompts = np.concatenate([cache.read_prompts(PROMPTS[label]) for label in labels])
        cosines = unit(cache.read_images(rows["sha256"].to_list())) @ unit(prompts).T
        mine = compared.predictions.filter(
            (pl.col("head") == "zero-shot") & pl.col("path").is_in(rows["path"].implode())
        )
        expected = dict(zip(rows["path"], (labels[number] for number in cosines.argmax(axis=1)), strict=True))
        assert dict(mine.select("path", "predicted").iter_rows()) == expected
        assert set(mine["probabilities"].list.len()) == {len(labels)}


def test_a_trained_head_is_scored_on_the_labels_that_it_knows(compared: Comparison) -> None:
    probe = compared.table.filter(pl.col("head") == "logreg")
    assert set(probe["test"]) == {"base"} and set(probe["class"]) == {*BASE, "all"}
    assert set(probe["harmonic_mean"]) == {None}


def test_the_harmonic_mean_stands_on_the_rows_of_all(compared: Comparison) -> None:
    rows = compared.table.filter((pl.col("head") == "zero-shot") & (pl.col("class") == "all"))
    base, new = (rows.filter(pl.col("test") == test)["accuracy"].item() for test in ("base", "novel"))
    assert rows["harmonic_mean"].to_list() == pytest.approx([2 * base * new / (base + new)] * 2)


def test_base_and_new_are_one_line_where_the_recipe_of_the_encoder_chose_something(split: Split, cache: Cache) -> None:
    choice = {"by": "folds", "temperature": 0.05, "margin": 0.0}
    facts = {"base_identity": "b", "checkpoint": "c", "recipe": "robust", "settings": {}, "seed": 0, "choice": choice}
    facts |= {"held_out": "half", "train_categories": BASE, "train_sha256": split.train_sha256(), "train_rows": 18}
    tuned = Cache(cache.folder.parent, replace(cache.record, trained_on=TrainedOn(**facts)))
    done = compare_split(split, [tuned], Settings("made", Labels.of(LABELS), PROMPTS, ("zero-shot",)))
    assert set(done.table["chosen_by"]) == set(done.predictions["chosen_by"]) == {"folds"}
    assert done.table.filter(pl.col("class") == "all")["harmonic_mean"].null_count() == 0


def test_the_rows_are_found_again_from_the_predictions(compared: Comparison) -> None:
    again = pl.DataFrame(rescore(compared.table, compared.predictions), schema_overrides={"seed": pl.Int64})
    assert np.allclose(again["recall"], compared.table["recall"])


def test_each_probability_is_of_its_own_label_where_a_part_has_two_and_one_says_real(tmp_path: Path) -> None:
    labels = ("real", "tiger", "umbra", "vole")
    parts = select(open_data(write_folder(tmp_path / "data", coloured_files(labels, 6, 5))), "half", 6, 5, by="label")
    encoder, filled = FakeEncoder(), Cache(tmp_path / "cache", FakeEncoder().record)
    embed_images(open_data(tmp_path / "data"), parts.rows(), lambda: encoder, filled)
    embed_prompts(labels, lambda: encoder, filled)
    settings = Settings("made", Labels.of(labels), {label: [label] for label in labels}, ("logreg",), "folds")
    done = compare_split(parts, [filled], settings)
    truth, p_real = (done.predictions[name].to_numpy() for name in ("label", "p_real"))
    assert done.table["class"].to_list() == ["tiger", "real", "all"]
    assert (p_real > 0.5).tolist() == (done.predictions["predicted"] == "real").to_list()
    assert done.table["roc_auc"][0] == pytest.approx(reference.roc_auc_score(truth == "real", p_real))
    assert done.table["log_loss"][0] == pytest.approx(reference.log_loss(truth == "real", p_real))
    (head,) = done.heads.values()
    of_real = list(head.classes_).index("real")
    chosen = left_out.threshold(head.left_out_, parts.train["label"].to_numpy() == "real", of_real)["threshold"]
    assert done.table["chosen_threshold"].to_list() == [chosen] * 3 and chosen != 0.5


def test_labels_by_name(dataset: Dataset) -> None:
    assert held_out_values(dataset, ("ant,elk",), "label") == ["ant,elk"]
    assert held_out_values(dataset, ("none",), "label") == ["none"]
    assert set(select(dataset, "ant,elk", 6, 5, by="label").train["label"]) == {"bee", "cow", "dog"}


@pytest.mark.parametrize("wanted, said", [("ant", "two labels"), ("ant,cat", "'cat'"), ("ant,bee,cow,dog", "two")])
def test_what_cannot_be_held_out_is_said(dataset: Dataset, wanted: str, said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        held_out_values(dataset, (wanted,), "label")


def test_an_encoder_that_saw_a_new_label_is_refused(split: Split, cache: Cache) -> None:
    facts = {"base_identity": "b", "checkpoint": "c", "recipe": "study", "settings": {}, "seed": 0, "held_out": "half"}
    trained = TrainedOn(**facts, train_categories=BASE, train_sha256=split.train_sha256(), train_rows=18)
    require_unseen(replace(cache.record, trained_on=trained), split)
    with pytest.raises(SelectionError):
        require_unseen(replace(cache.record, trained_on=replace(trained, train_categories=(*BASE, "dog"))), split)
