"""Heads against independent references, and what they choose on."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from toolkit.encoders.record import Sees
from toolkit.errors import SelectionError
from toolkit.heads import HEADS, head_class, knn, make_head
from toolkit.heads.base import fold_numbers, unit
from toolkit.heads.knn import SHARPNESS, NearestNeighbours
from toolkit.heads.logreg import GRID, LogisticProbe
from toolkit.heads.shortcut import Shortcut
from toolkit.heads.zero_shot import ZeroShot


def clouds(count: int, seed: int = 0, dimension: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping clouds of two labels in three categories."""
    rng = np.random.default_rng(seed)
    y = np.array(["FAKE", "REAL"])[rng.integers(0, 2, count)]
    groups = np.array(["bird", "cat", "dog"])[rng.integers(0, 3, count)]
    X = rng.normal(size=(count, dimension)) + 3
    X[:, 0] += 0.8 * (y == "REAL")
    X[:, 1] += 1.5 * (groups == "dog") * np.where(y == "REAL", 1, -1)
    return X.astype(np.float32), y, groups


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("head", [LogisticProbe(), NearestNeighbours(), Shortcut(depths=(2,))])
def test_probes_pass_scikit_learns_own_checks(head: object) -> None:
    check_estimator(head)


@pytest.mark.parametrize("choose_by", ["category", "folds"])
def test_logistic_scores_are_those_of_plain_scikit_learn_with_the_chosen_c(choose_by: str) -> None:
    X, y, groups = clouds(400)
    new = clouds(100, seed=1)[0]
    head = LogisticProbe(choose_by).fit(X, y, groups)
    plain = LogisticRegression(C=head.choice_["C"], max_iter=10_000, tol=1e-10).fit(unit(X).astype(np.float64), y)
    assert np.allclose(head.predict_proba(new), plain.predict_proba(unit(new).astype(np.float64)), atol=1e-3)


def test_several_classes_get_the_scores_and_the_c_of_plain_scikit_learn() -> None:
    X, _, y = clouds(400)
    new = clouds(100, seed=1)[0]
    head = LogisticProbe("folds").fit(X, y)
    numbers = fold_numbers(np.unique(y, return_inverse=True)[1], None, "folds")[0]
    losses = []
    for strength in GRID:
        model, per_fold = LogisticRegression(C=strength, max_iter=10_000, tol=1e-8), []
        for fitting, out in ((numbers != n, numbers == n) for n in np.unique(numbers)):
            odds = model.fit(unit(X[fitting]).astype(np.float64), y[fitting]).predict_proba(unit(X[out]))
            per_fold.append(-np.log(odds[np.arange(out.sum()), np.searchsorted(model.classes_, y[out])]).mean())
        losses.append(np.mean(per_fold))
    assert head.choice_["C"] == GRID[int(np.argmin(losses))]
    assert head.choice_["log_loss"] == pytest.approx(min(losses), abs=1e-3)
    plain = LogisticRegression(C=head.choice_["C"], max_iter=10_000, tol=1e-10).fit(unit(X).astype(np.float64), y)
    assert head.classes_.tolist() == ["bird", "cat", "dog"]
    assert np.allclose(head.predict_proba(new), plain.predict_proba(unit(new).astype(np.float64)), atol=1e-3)


def test_columns_that_nearly_repeat_each_other_are_fitted_without_a_warning() -> None:
    """Fine-tuned vectors lie almost on a line; a warning would fail this suite."""
    rng = np.random.default_rng(0)
    y = np.array(["FAKE", "REAL"] * 3000)
    line = rng.normal(size=(6000, 1)) + np.where(y == "REAL", 1.0, -1.0)[:, None]
    X = (line @ rng.normal(size=(1, 256)) + 5 + 1e-4 * rng.normal(size=(6000, 256))).astype(np.float32)
    head = LogisticProbe(grid=(1000.0,)).fit(X, y)
    assert head.score(X, y) > 0.8


def test_c_is_the_one_with_the_least_log_loss_on_left_out_categories() -> None:
    X, y, groups = clouds(400)
    head = LogisticProbe("category").fit(X, y, groups)
    losses = []
    for strength in GRID:
        per_category = []
        for category in np.unique(groups):
            out = groups == category
            model = LogisticRegression(C=strength, max_iter=10_000).fit(unit(X[~out]), y[~out])
            odds = model.predict_proba(unit(X[out]))[np.arange(out.sum()), (y[out] == "REAL").astype(int)]
            per_category.append(-np.log(odds).mean())
        losses.append(np.mean(per_category))
    assert head.choice_["C"] == GRID[int(np.argmin(losses))]
    assert head.choice_["by"] == "category"
    assert head.choice_["log_loss"] == pytest.approx(min(losses), abs=2e-3)


def votes(cosines: np.ndarray, positive: np.ndarray, weighting: str) -> np.ndarray:
    """P(REAL) by hand `[Q]` from the nearest neighbours' cosines and labels `[Q, k]`, smoothed by one vote for both."""
    weights = np.exp((cosines - cosines[:, :1]) / SHARPNESS) if weighting == "similarity" else np.ones(cosines.shape)
    k = cosines.shape[1]
    return (k * (weights * positive).sum(axis=1) / weights.sum(axis=1) + 0.5) / (k + 1)


def nearest_by_hand(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    cosines = unit(queries).astype(np.float64) @ unit(vectors).astype(np.float64).T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, rows, axis=1), rows


@pytest.mark.parametrize(("k", "weighting"), [(1, "uniform"), (9, "uniform"), (9, "similarity")])
def test_neighbours_vote_as_brute_force_does(k: int, weighting: str) -> None:
    """Where labels are mere chance, nearer neighbours know no better than others: each counts as one."""
    X, y, groups = clouds(300)
    new = clouds(200, seed=1)[0]
    y = np.random.default_rng(0).permutation(y) if weighting == "uniform" else y
    head = NearestNeighbours("folds", k_grid=(k,)).fit(X, y, groups)
    assert head.weighting_ == weighting
    cosines, rows = nearest_by_hand(X, new, k)
    expected = votes(cosines, y[rows] == "REAL", weighting)
    assert np.allclose(head.predict_proba(new)[:, 1], expected, atol=1e-4)
    sure = np.abs(expected - 0.5) > 1e-4
    assert sure.mean() > 0.9 and (head.predict(new)[sure] == np.where(expected > 0.5, "REAL", "FAKE")[sure]).all()


def losses_by_hand(X: np.ndarray, y: np.ndarray, groups: np.ndarray, asked: np.ndarray) -> dict[tuple[int, str], float]:
    """(k, weighting) -> the mean over the categories of the log loss of their `asked` rows, among other categories."""
    losses = {}
    for k, weighting in itertools.product((1, 5, 25), ("uniform", "similarity")):
        per_category = []
        for category in np.unique(groups):
            out, rest = asked[groups[asked] == category], groups != category
            cosines, rows = nearest_by_hand(X[rest], X[out], k)
            odds = votes(cosines, y[rest][rows] == "REAL", weighting)
            per_category.append(-np.log(np.where(y[out] == "REAL", odds, 1 - odds)).mean())
        losses[k, weighting] = float(np.mean(per_category))
    return losses


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_k_and_weighting_are_chosen_among_neighbours_of_other_categories_as_by_brute_force(seed: int) -> None:
    X, y, groups = clouds(200, seed)
    head = NearestNeighbours("category", k_grid=(1, 5, 25)).fit(X, y, groups)
    losses = losses_by_hand(X, y, groups, np.arange(200))
    best = min(losses, key=losses.__getitem__)
    assert head.choice_["log_loss"] == pytest.approx(losses[best], abs=1e-4)
    assert (head.choice_["k"], head.choice_["weighting"]) == best


def test_of_many_rows_a_draw_chooses_k_and_all_of_them_stay_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "MOST_QUERIES", 150)
    X, y, groups = clouds(600)
    head = NearestNeighbours("category", k_grid=(1, 5, 25)).fit(X, y, groups)
    assert head.left_out_ is not None
    drawn = head.left_out_.rows
    assert len(np.unique(drawn)) == 150
    losses = losses_by_hand(X, y, groups, drawn)
    best = min(losses, key=losses.__getitem__)
    assert (head.choice_["k"], head.choice_["weighting"]) == best
    assert head.choice_["log_loss"] == pytest.approx(losses[best], abs=1e-4)
    cosines, rows = nearest_by_hand(X, X, best[0])
    expected = votes(cosines, y[rows] == "REAL", best[1])
    assert np.allclose(head.predict_proba(X)[:, 1], expected, atol=1e-4)


def test_without_categories_it_chooses_by_random_folds_and_says_so() -> None:
    X, y, _ = clouds(100)
    for head in (LogisticProbe("category"), NearestNeighbours("category")):
        assert head.fit(X, y).choice_["by"] == "folds"


def test_zero_shot_is_a_softmax_over_cosines_by_hand() -> None:
    prompts = {"FAKE": np.array([[2.0, 0.0]]), "REAL": np.array([[0.0, 3.0]])}
    head = ZeroShot(prompts, temperature=0.5).fit(np.zeros((1, 2)), np.array(["REAL"]))
    got = head.predict_proba(np.array([[3.0, 4.0]]))
    odds = np.exp([0.6 / 0.5, 0.8 / 0.5])
    assert np.allclose(got, [odds / odds.sum()], atol=1e-6)
    assert head.predict(np.array([[3.0, 4.0], [1.0, 0.0]])).tolist() == ["REAL", "FAKE"]


def test_several_prompts_a_class_are_averaged_at_unit_length() -> None:
    two = {"FAKE": np.array([[5.0, 0.0], [0.0, 1.0]]), "REAL": np.array([[1.0, -1.0]])}
    one = {"FAKE": np.array([[1.0, 1.0]]), "REAL": np.array([[1.0, -1.0]])}
    X = np.random.default_rng(0).normal(size=(5, 2))
    both = [ZeroShot(prompts).fit(X, np.array(["FAKE"] * 5)).predict_proba(X) for prompts in (two, one)]
    assert np.allclose(*both, atol=1e-6)


def test_the_length_of_a_vector_changes_nothing() -> None:
    X, y, groups = clouds(150)
    prompts = {"FAKE": X[:1], "REAL": X[1:2]}
    for name in [name for name in HEADS if Sees.LAST_LAYER in head_class(name).reads]:
        head = make_head(name, prompts).fit(X, y, groups)
        assert np.allclose(head.predict_proba(X[:20]), head.predict_proba(7 * X[:20]), atol=1e-5), name


def test_an_unknown_head_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SelectionError, match=", ".join(HEADS)):
        make_head("forest", {})


@pytest.mark.parametrize("choose_by", ["category", "folds"])
def test_real_clip_vectors_reach_what_plain_scikit_learn_reaches(shared: Path, choose_by: str) -> None:
    data = np.load(shared / "clip-vit-b16-cifake.npz")
    head = LogisticProbe(choose_by).fit(data["train_x"], data["train_y"], data["train_c"])
    assert head.score(data["base_x"], data["base_y"]) == pytest.approx(0.92, abs=0.015)
    assert head.score(data["cat_x"], data["cat_y"]) == pytest.approx(0.855, abs=0.025)
