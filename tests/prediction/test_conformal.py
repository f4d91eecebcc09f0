"""Conformal sets and operating points, against their definition and on exchangeable data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import SelectionError
from toolkit.prediction import conformal


def odds_of(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    """A weak, miscalibrated head: P of the right label is drawn around 0.62."""
    right = 1 / (1 + np.exp(-rng.normal(0.5, 1.0, len(codes))))
    odds = np.stack([right, 1 - right], axis=1)
    odds[codes == 1] = odds[codes == 1, ::-1]
    return odds


def test_the_limit_is_the_score_of_the_conformal_rank() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.4, 0.6, 0.8])
    assert conformal.ranked(scores, 0.9, "FAKE") == 0.9, "ceil(10 * 0.9) is the 9th of 9"
    assert conformal.ranked(scores, 0.8, "FAKE") == 0.8
    assert conformal.ranked(scores, 0.75, "FAKE") == 0.8, "ceil(7.5) is 8"


def test_too_few_images_for_a_promise_are_an_error_that_says_how_many_it_takes() -> None:
    assert conformal.ranked(np.arange(99.0), 0.99, "FAKE") == 98
    with pytest.raises(SelectionError, match="98 images of FAKE .* 99 or more"):
        conformal.ranked(np.arange(98.0), 0.99, "FAKE")


def test_sets_hold_the_labels_that_fit_and_may_be_empty_or_whole() -> None:
    odds = np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]])
    assert conformal.sets(odds, np.array([0.4, 0.4])).tolist() == [[True, False], [False, False], [False, True]]
    assert conformal.sets(odds, np.array([0.6, 0.6])).tolist() == [[True, False], [True, True], [False, True]]


@given(seed=st.integers(0, 9999), labels=st.integers(2, 5))
def test_a_set_with_any_label_has_the_likeliest_and_loses_none(seed: int, labels: int) -> None:
    rng = np.random.default_rng(seed)
    odds, limits, codes = rng.dirichlet(np.ones(labels), 50), rng.random(labels), rng.integers(0, labels, 50)
    found, fitting = conformal.sets(odds, limits), 1 - odds <= limits
    assert (found.any(axis=1) == fitting.any(axis=1)).all() and (found >= fitting).all()
    assert found[np.arange(50), odds.argmax(axis=1)][fitting.any(axis=1)].all()
    assert (found.sum(axis=1) <= fitting.sum(axis=1) + 1).all()
    assert conformal.measured_sets(found, codes)["coverage"] >= conformal.measured_sets(fitting, codes)["coverage"]


def test_a_less_likely_label_is_no_answer_because_it_alone_is_left() -> None:
    assert conformal.sets(np.array([[0.7, 0.3]]), np.array([0.2, 0.8])).tolist() == [[True, True]]


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_each_labels_share_of_misses_is_alpha_on_exchangeable_images_however_common_the_label(alpha: float) -> None:
    rng, misses, wrong = np.random.default_rng(1), [], []
    for _ in range(600):
        codes = (rng.random(160) < 0.3).astype(int)
        limits = conformal.thresholds(odds_of(rng, codes), codes, alpha, ["FAKE", "REAL"])
        new = (rng.random(400) < 0.8).astype(int)
        contained = conformal.sets(odds_of(rng, new), limits)
        misses.append([1 - contained[new == code, code].mean() for code in (0, 1)])
        wrong.append(conformal.measured_sets(contained, new)["wrong"])
    mean = np.mean(misses, axis=0)
    spread = 4 * np.std(misses, axis=0) / np.sqrt(len(misses))
    assert (mean <= alpha + spread).all()
    assert (mean >= alpha - 1 / 30 - spread).all(), "no more careful than it must be: 1/(n + 1) at most"
    assert np.mean(wrong) <= alpha + spread.max()


def test_what_is_measured_is_what_counting_by_hand_gives() -> None:
    contained = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [0, 1]], dtype=bool)
    found = conformal.measured_sets(contained, np.array([0, 1, 1, 1, 0]))
    assert found == pytest.approx({"images": 5, "coverage": 0.6, "answered": 0.6, "right": 2 / 3, "wrong": 0.2})


def test_among_five_labels_each_ones_share_of_misses_is_alpha_too() -> None:
    rng, misses = np.random.default_rng(2), []
    for _ in range(200):
        codes, new = rng.integers(0, 5, 250), rng.integers(0, 5, 500)
        odds = [np.exp(rng.normal(size=(len(one), 5)) + 1.5 * np.eye(5)[one]) for one in (codes, new)]
        first, second = (one / one.sum(axis=1, keepdims=True) for one in odds)
        contained = conformal.sets(second, conformal.thresholds(first, codes, 0.2, list("abcde")))
        misses.append([1 - contained[new == code, code].mean() for code in range(5)])
    spread = 4 * np.std(misses, axis=0) / np.sqrt(len(misses))
    assert (np.abs(np.mean(misses, axis=0) - 0.2) <= spread + 1 / 30).all()
    assert (np.mean(misses, axis=0) <= 0.2 + spread).all()
