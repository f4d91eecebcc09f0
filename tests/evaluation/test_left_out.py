"""What left-out training categories say of a head: its log loss, and the threshold that they choose."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from trees import cifake_files, write_folder

from toolkit.cache.embedding import embed_images, embed_prompts
from toolkit.cache.store import Cache
from toolkit.data.labels import Labels
from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.encoders.record import Sees, TrainedOn
from toolkit.evaluation import columns, left_out
from toolkit.evaluation.grid import Comparison, Settings
from toolkit.evaluation.intervals import wilson
from toolkit.evaluation.scoring import rescore
from toolkit.heads import HEADS, head_class, make_head
from toolkit.heads.base import LeftOut, unit
from toolkit.pipeline.compare import compare_split

PROMPTS = {"FAKE": ["fake"], "REAL": ["real"]}
OF_VECTORS = [name for name in HEADS if Sees.LAST_LAYER in head_class(name).reads]
TUNED = {"base_identity": "b", "checkpoint": "c", "recipe": "study", "settings": {}, "seed": 0, "held_out": "cat"}

Made = tuple[Split, Cache, Comparison]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("left-out")
    dataset, encoder = open_data(write_folder(home / "cifake", cifake_files(8, 6))), FakeEncoder()
    split, cache = select(dataset, "cat", 36, 20), Cache(home / "cache", encoder.record)
    embed_images(dataset, split.rows(), lambda: encoder, cache)
    embed_prompts(["fake", "real"], lambda: encoder, cache)
    return split, cache, compared(split, cache)


def compared(split: Split, cache: Cache) -> Comparison:
    return compare_split(split, [cache], Settings("made", Labels.of(["FAKE", "REAL"]), PROMPTS, OF_VECTORS))


def training(split: Split, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = split.groups()
    assert groups is not None
    return cache.read_images(split.train["sha256"].to_list()), split.train["label"].to_numpy(), np.asarray(groups)


def sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def test_a_probe_says_of_each_row_what_a_probe_without_its_category_says(made: Made) -> None:
    split, cache, done = made
    X, y, groups = training(split, cache)
    head = done.heads[cache.record.identity, "logreg"]
    found = head.left_out_
    assert sorted(found.rows) == list(range(len(y)))
    for group in np.unique(groups):
        model = LogisticRegression(C=head.choice_["C"], max_iter=5000, tol=1e-8)
        model.fit(unit(X)[groups != group], y[groups != group])
        rows = np.flatnonzero(groups == group)
        mine = found.probabilities[[list(found.rows).index(row) for row in rows]]
        np.testing.assert_allclose(mine, model.predict_proba(unit(X)[rows]), atol=2e-3)


@pytest.mark.parametrize("name", [name for name in OF_VECTORS if name != "zero-shot"])
def test_the_log_loss_of_a_head_is_that_of_its_left_out_rows(made: Made, name: str) -> None:
    split, cache, done = made
    _, y, groups = training(split, cache)
    head = done.heads[cache.record.identity, name]
    truth, of_row = y[head.left_out_.rows], groups[head.left_out_.rows]
    each = [
        log_loss(truth[of_row == group], head.left_out_.probabilities[of_row == group], labels=["FAKE", "REAL"])
        for group in np.unique(of_row)
    ]
    assert head.choice_["log_loss"] == pytest.approx(np.mean(each), abs=1e-4)


def test_prompts_are_rated_on_the_training_images_too(made: Made) -> None:
    split, cache, done = made
    X, y, groups = training(split, cache)
    head = done.heads[cache.record.identity, "zero-shot"]
    p = make_head("zero-shot", head.prompts).fit(X, y).predict_proba(X)
    each = [log_loss(y[groups == group], p[groups == group], labels=["FAKE", "REAL"]) for group in np.unique(groups)]
    assert head.choice_["log_loss"] == pytest.approx(np.mean(each), abs=1e-4)
    assert set(done.table.filter(pl.col("head") == "zero-shot")["chosen_by"]) == {""}


def test_the_bias_makes_p_right_on_average_and_pays_only_where_categories_agree() -> None:
    """At the lowest log loss the mean P is the share of positives; a shift of its own in each category never pays."""
    rng = np.random.default_rng(0)
    folds, truth = np.repeat(np.arange(4), 250), rng.random(1000) < 0.5
    fair = 4 * rng.normal(size=1000) + np.where(truth, 2.0, -2.0)
    for shifts, pays in (([2.0] * 4, True), ([3.0, -3.0, 3.0, -3.0], False)):
        p = sigmoid(fair / 4 + np.array(shifts)[folds])
        said = left_out.threshold(LeftOut(np.arange(1000), folds, np.stack([1 - p, p], axis=1)), truth, 1)
        odds, at = np.log(p / (1 - p)), said["threshold"]
        assert sigmoid(odds - np.log(at / (1 - at))).mean() == pytest.approx(truth.mean(), abs=1e-3)
        plain = np.mean([log_loss(truth[folds == fold], p[folds == fold]) for fold in range(4)])
        assert (said["log_loss_with_bias"] < plain) == pays


def test_the_accuracy_at_the_threshold_follows_from_the_predictions(made: Made) -> None:
    done = made[2]
    every = done.table.filter((pl.col("class") == "all") & (pl.col("head") != "zero-shot"))
    for row in every.iter_rows(named=True):
        mine = done.predictions.filter((pl.col("head") == row["head"]) & (pl.col("test") == row["test"]))
        assert row["chosen_threshold"] == json.loads(row["choice"])["threshold"]
        right = int(((mine["p_real"] > row["chosen_threshold"]) == (mine["label"] == "REAL")).sum())
        found = [row[f"{columns.AT_THRESHOLD}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([right / len(mine), *wilson(right, len(mine))])
    again = pl.DataFrame(rescore(done.table, done.predictions), schema_overrides={"seed": pl.Int64})
    assert again[columns.AT_THRESHOLD].to_list() == done.table[columns.AT_THRESHOLD].to_list()


def test_a_fine_tuned_encoder_saw_the_images_so_nothing_is_chosen_by_category(made: Made) -> None:
    split, cache, plain = made
    facts = {"train_categories": (), "train_sha256": split.train_sha256(), "train_rows": len(split.train)}
    tuned = Cache(cache.folder.parent, replace(cache.record, trained_on=TrainedOn(**TUNED, **facts)))
    every = compared(split, tuned).table.filter(pl.col("class") == "all")
    assert every[columns.AT_THRESHOLD].null_count() == every["chosen_threshold"].null_count() == len(every)
    assert set(every.filter(pl.col("head") == "logreg")["chosen_by"]) == {"category (seen)"}
    choices = dict(every.select("head", "choice").iter_rows())
    before = dict(plain.table.select("head", "choice").iter_rows())
    for head, choice in choices.items():
        said = json.loads(choice)
        assert said["left_out"] == "not chosen by category: the encoder trained on these images"
        assert left_out.honest_log_loss(said, head, tuned.record.trained_on) is None
        if head != "zero-shot":
            assert said["log_loss"] is None and said["log_loss_seen"] == json.loads(before[head])["log_loss"]


@pytest.mark.parametrize(("head", "wanted"), [("logreg", "category (seen)"), ("zero-shot", "category")])
def test_rows_of_an_earlier_version_say_so_too(made: Made, head: str, wanted: str) -> None:
    """A recipe that left categories out of fine-tuning chose for its prompts; what a probe left out, it had seen."""
    rows = made[2].table.filter(pl.col("head") == head).with_columns(recipe=pl.lit("x"), chosen_by=pl.lit("category"))
    stored = columns.brought_up_to_date(rows, columns.RESULTS)
    assert set(stored["chosen_by"]) == {wanted}
    assert columns.brought_up_to_date(stored, columns.RESULTS).equals(stored)
    base = columns.brought_up_to_date(made[2].table, columns.RESULTS)
    assert base["chosen_by"].to_list() == made[2].table["chosen_by"].to_list()
