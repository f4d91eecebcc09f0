"""Discriminant analysis, Tip-Adapter and CLAP against scikit-learn, scipy and plain loops."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from toolkit.heads import base, make_head, tip_adapter
from toolkit.heads.base import unit
from toolkit.heads.lda import DiscriminantAnalysis
from toolkit.heads.stored import from_bytes, to_bytes
from toolkit.heads.tip_adapter import SHARES, SHARPNESSES

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def clouds(count: int, classes: int = 3, dimension: int = 12, seed: int = 0) -> Rows:
    """Overlapping clouds of a few labels in three categories, each category with a turn of its own."""
    rng = np.random.default_rng(seed)
    codes, groups = rng.integers(0, classes, count), rng.integers(0, 3, count)
    X = rng.normal(size=(count, dimension)) * np.geomspace(2, 0.3, dimension) + 2
    X[np.arange(count), codes] += 1.5
    X[:, 4] += (groups - 1) * codes
    return X.astype(np.float32), np.array(["A", "B", "C"])[codes], np.array(["bird", "cat", "dog"])[groups]


def prompts(classes: int = 3, dimension: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {"ABC"[code]: 3 * np.eye(dimension)[[code]] + rng.normal(size=(2, dimension)) for code in range(classes)}


def inverse_covariance(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kubokawa & Srivastava's, from the definition."""
    centred = np.concatenate([X[y == one] - X[y == one].mean(axis=0) for one in np.unique(y)])
    rows, columns = X.shape
    S = centred.T @ centred / (rows - 1)
    return columns * np.linalg.inv((rows - 1) * S + np.trace(S) * np.eye(columns))


class Given:
    """A covariance that scikit-learn takes as estimated."""

    def __init__(self, covariance: np.ndarray):
        self.covariance_ = covariance

    def fit(self, X: np.ndarray) -> "Given":
        return self


def plain_lda(X: np.ndarray, y: np.ndarray) -> LinearDiscriminantAnalysis:
    """scikit-learn's, with that covariance and equal priors, on unit vectors."""
    X, classes = unit(X).astype(np.float64), len(np.unique(y))
    covariance = Given(np.linalg.inv(inverse_covariance(X, y)))
    return LinearDiscriminantAnalysis("lsqr", priors=[1 / classes] * classes, covariance_estimator=covariance).fit(X, y)


def log_odds(model: LinearDiscriminantAnalysis, X: np.ndarray) -> np.ndarray:
    found = model.decision_function(unit(X).astype(np.float64))
    return found if found.ndim == 2 else np.stack([np.zeros(len(found)), found], axis=1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_discriminant_analysis_passes_scikit_learns_own_checks() -> None:
    check_estimator(DiscriminantAnalysis())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("dimension", [12, 150])
def test_discriminants_are_scikit_learns_with_the_papers_covariance(classes: int, dimension: int) -> None:
    """At the chosen temperature, for which the paper's own odds have (N - 1) / D. Of 150 columns, there are fewer rows
    than columns."""
    X, y, groups = clouds(90, classes, dimension)
    new = clouds(40, classes, dimension, seed=1)[0]
    head = DiscriminantAnalysis().fit(X, y, groups)
    plain = plain_lda(X, y)
    times = (len(X) - 1) / dimension / head.choice_["temperature"]
    assert np.allclose(head.predict_proba(new), softmax(times * log_odds(plain, new), axis=1), atol=1e-3)
    assert (head.predict(new) == plain.predict(unit(new))).all()


@pytest.mark.parametrize("choose_by", ["category", "folds"])
def test_its_temperature_has_the_least_log_loss_on_what_is_left_out(choose_by: str) -> None:
    X, y, groups = clouds(150)
    head = DiscriminantAnalysis(choose_by).fit(X, y, groups)
    numbers = base.fold_numbers(y, groups, choose_by)[0]

    def loss(times: float) -> float:
        per_fold = []
        for out in (numbers == number for number in np.unique(numbers)):
            papers = ((~out).sum() - 1) / X.shape[1]
            logits = log_odds(plain_lda(X[~out], y[~out]), X[out]) * papers / (head.choice_["temperature"] * times)
            per_fold.append(-log_softmax(logits, axis=1)[np.arange(out.sum()), np.searchsorted(list("ABC"), y[out])])
        return float(np.mean([part.mean() for part in per_fold]))

    assert head.choice_["by"] == choose_by and head.choice_["log_loss"] == pytest.approx(loss(1), abs=1e-3)
    assert loss(1) < min(loss(1.1), loss(0.9))


def test_wide_rows_choose_on_some_and_are_fitted_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, groups = clouds(90, dimension=30)
    monkeypatch.setattr(base, "MOST_COLUMNS", 20)
    head, logreg = (make_head(name, {}).fit(X, y, groups) for name in ("lda", "logreg"))
    assert head.choice_["chosen_on"] == logreg.choice_["chosen_on"] == 20
    assert (head.predict(X) == plain_lda(X, y).predict(unit(X))).all()
    plain = LogisticRegression(C=logreg.choice_["C"], tol=1e-8, max_iter=1000).fit(unit(X).astype(np.float64), y)
    assert np.allclose(logreg.predict_proba(X), plain.predict_proba(unit(X)), atol=1e-3)


def votes_by_hand(queries: np.ndarray, X: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    found = np.zeros((len(queries), 3))
    for row, query in enumerate(unit(queries).astype(np.float64)):
        for key, label in zip(unit(X).astype(np.float64), y, strict=True):
            found[row, "ABC".index(label)] += np.exp(-beta * (1 - query @ key))
    return found


def cosines_by_hand(X: np.ndarray) -> np.ndarray:
    means = [
        np.mean(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), axis=0) for vectors in prompts().values()
    ]
    return unit(X) @ np.stack([mean / np.linalg.norm(mean) for mean in means]).T


def test_cached_images_vote_as_in_a_plain_loop_whatever_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, groups = clouds(60)
    new = clouds(15, seed=1)[0]
    for at_once in (1 << 24, 200):
        monkeypatch.setattr(tip_adapter, "VALUES_AT_ONCE", at_once)
        head = make_head("tip-adapter", prompts()).fit(X, y, groups)
        votes = votes_by_hand(new, X, y, head.choice_["beta"])
        expected = softmax(cosines_by_hand(new) / 0.07 + head.choice_["alpha"] * votes, axis=1)
        assert head.choice_["alpha"] > 0 and np.allclose(head.predict_proba(new), expected, atol=1e-4)


def test_alpha_and_beta_are_those_of_brute_force_on_left_out_categories() -> None:
    X, y, groups = clouds(60)
    head = make_head("tip-adapter", prompts()).fit(X, y, groups)
    losses = np.zeros((len(SHARPNESSES), len(SHARES)))
    for out in (groups == one for one in np.unique(groups)):
        truth = np.searchsorted(list("ABC"), y[out])
        for row, beta in enumerate(SHARPNESSES):
            votes = votes_by_hand(X[out], X[~out], y[~out], beta) * 3 / (~out).sum()
            for column, share in enumerate(SHARES):
                logits = log_softmax(cosines_by_hand(X[out]) / 0.07 + share * votes, axis=1)
                losses[row, column] -= logits[np.arange(len(truth)), truth].mean() / 3
    row, column = np.unravel_index(losses.argmin(), losses.shape)
    assert head.choice_["beta"] == SHARPNESSES[row] and head.choice_["by"] == "category"
    assert head.choice_["alpha"] == pytest.approx(SHARES[column] * 3 / len(X))
    assert head.choice_["log_loss"] == pytest.approx(losses.min(), abs=1e-3)


def test_many_images_choose_with_a_sample_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, groups = clouds(300)
    every = make_head("tip-adapter", prompts()).fit(X, y, groups).choice_
    monkeypatch.setattr(tip_adapter, "MOST_QUERIES", 100)
    some = make_head("tip-adapter", prompts()).fit(X, y, groups).choice_
    assert some["log_loss"] != every["log_loss"] and some["log_loss"] == pytest.approx(every["log_loss"], abs=0.2)


def test_clap_is_the_optimum_of_the_papers_objective_by_scipy() -> None:
    X, y, _ = clouds(60)
    new = clouds(20, seed=1)[0]
    head = make_head("clap", prompts()).fit(X, y)
    rows, truth = np.arange(60), np.searchsorted(list("ABC"), y)
    start = np.linalg.lstsq(unit(X), cosines_by_hand(X), rcond=None)[0].T
    odds = softmax(cosines_by_hand(X) / 0.07, axis=1)
    held = np.array([odds[truth == code, code].mean() for code in range(3)])
    assert list(head.choice_["held_to_prompts"].values()) == pytest.approx(held.tolist(), abs=1e-3)

    def logits(flat: np.ndarray, of: np.ndarray) -> np.ndarray:
        prototypes = flat.reshape(3, -1)
        return unit(of) @ (prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)).T / 0.07

    def objective(flat: np.ndarray) -> float:
        loss = -log_softmax(logits(flat, X), axis=1)[rows, truth].mean()
        return float(loss + (held * ((flat.reshape(3, -1) - start) ** 2).sum(axis=1)).mean())

    best = minimize(objective, start.ravel(), method="BFGS", options={"gtol": 1e-6}).x
    assert np.allclose(head.predict_proba(new), softmax(logits(best, new), axis=1), atol=0.01)
    assert objective(best) < objective(start.ravel()) - 0.1


def test_prompts_that_are_right_are_kept_by_clap_and_wrong_ones_left() -> None:
    X, y, _ = clouds(90)
    right = {label: X[y == label] for label in "ABC"}
    wrong = {"A": X[y == "B"], "B": X[y == "A"], "C": X[y == "C"]}
    held = [make_head("clap", given).fit(X, y).choice_["held_to_prompts"] for given in (right, wrong)]
    assert held[0]["A"] > held[1]["A"] and held[0]["C"] == pytest.approx(held[1]["C"], abs=0.05)
    clap, alone = (make_head(name, wrong).fit(X, y).score(X, y) for name in ("clap", "zero-shot"))
    assert clap > 0.6 > 0.4 > alone


@pytest.mark.parametrize("name", ["logreg", "lda", "knn", "tip-adapter", "clap"])
def test_one_image_a_label_leaves_nothing_to_choose_on_and_is_enough(name: str) -> None:
    X = np.eye(3, 12, dtype=np.float32) + 0.1
    head = make_head(name, prompts()).fit(X, np.array(["A", "B", "C"]), groups=np.array(["bird", "cat", "dog"]))
    assert head.choice_.get("by", "default") == "default" and head.choice_.get("log_loss") is None
    assert head.predict(X).tolist() == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["lda", "tip-adapter", "clap"])
def test_stored_ones_say_the_same_and_need_prompts_where_they_say_so(name: str) -> None:
    X, y, groups = clouds(60)
    head = make_head(name, prompts()).fit(X, y, groups)
    again = from_bytes(to_bytes(head), "head")
    assert np.array_equal(again.predict_proba(X), head.predict_proba(X)) and again.choice_ == head.choice_
    if head.needs_prompts:
        with pytest.raises(ValueError, match="no prompts for the classes"):
            make_head(name, {"A": X[:1]}).fit(X, y, groups)
