"""Logistic regressions solved side by side are those that scikit-learn finds one at a time."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from toolkit.heads import newton
from toolkit.heads.base import unit
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.newton import EVERYTHING, LogisticFamily


def categories(count: int, dimension: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of two classes in five categories, each with a direction of its own, in columns of uneven spread."""
    rng = np.random.default_rng(seed)
    numbers, positive = rng.integers(0, 5, count), rng.random(count) < 0.4
    X = rng.normal(size=(count, dimension)) * np.geomspace(1, 0.01, dimension) + 1
    X += rng.normal(size=(5, dimension))[numbers] + 0.2 * positive[:, None] * rng.normal(size=(5, dimension))[numbers]
    return unit(X), positive ^ (rng.random(count) < 0.1), numbers


@pytest.mark.parametrize("strength", [0.1, 3.0, 100.0])
def test_each_problem_is_scikit_learns_on_the_rows_that_it_keeps(strength: float) -> None:
    X, positive, numbers = categories(800, 32)
    family = LogisticFamily(X, positive.astype(int), numbers, np.array([0, 1, 2, 3, 4, EVERYTHING]))
    family.solve(strength)
    everywhere = np.arange(len(X))
    for problem, left_out in enumerate(family.left_out):
        kept = numbers != left_out
        plain = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-9, max_iter=1000)
        expected = plain.fit(X[kept].astype(np.float64), positive[kept]).predict_proba(X.astype(np.float64))
        assert np.allclose(family.probabilities(problem, everywhere), expected, atol=1e-3)


@pytest.mark.parametrize("strength", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("classes", [3, 7])
def test_so_is_each_problem_of_several_classes(strength: float, classes: int) -> None:
    X, positive, numbers = categories(900, 24)
    codes = (np.digitize(X[:, 0], np.quantile(X[:, 0], np.arange(1, classes) / classes)) + positive) % classes
    family = LogisticFamily(X, codes, numbers, np.array([0, 3, EVERYTHING]))
    family.solve(strength)
    for problem, left_out in enumerate(family.left_out):
        kept = numbers != left_out
        plain = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000)
        expected = plain.fit(X[kept].astype(np.float64), codes[kept]).predict_proba(X.astype(np.float64))
        assert np.allclose(family.probabilities(problem, np.arange(len(X))), expected, atol=1e-3)


def test_a_path_of_strengths_ends_where_the_last_strength_alone_ends() -> None:
    X, positive, numbers = categories(600, 16)
    path, alone = (LogisticFamily(X, positive.astype(int), numbers, np.array([0, EVERYTHING])) for _ in range(2))
    for strength in (0.1, 1.0, 10.0, 100.0):
        path.solve(strength)
    alone.solve(100.0)
    rows = np.arange(len(X))
    assert np.allclose(path.probabilities(0, rows), alone.probabilities(0, rows), atol=1e-3)


def test_how_many_are_solved_at_once_and_rows_summed_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, positive, numbers = categories(600, 16)
    found = []
    for together, rows_at_once in ((1 << 24, 8192), (1200, 100)):
        monkeypatch.setattr(newton, "TOGETHER", together)
        monkeypatch.setattr(newton, "ROWS_AT_ONCE", rows_at_once)
        family = LogisticFamily(X, positive.astype(int), numbers, np.array([0, 1, 2, 3, EVERYTHING]))
        family.solve(10.0)
        found.append(family.probabilities(3, np.arange(len(X))))
    assert np.allclose(*found, atol=1e-3)


def test_classes_that_a_line_divides_end_where_the_penalty_holds_them() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(200) % 2 == 0
    X = unit(np.stack([np.where(positive, 1.0, -1.0), rng.normal(size=200)], axis=1))
    family = LogisticFamily(X, positive.astype(int), np.zeros(200, dtype=np.int64), np.array([EVERYTHING]))
    family.solve(1000.0)
    plain = LogisticRegression(C=1000.0, tol=1e-9, max_iter=10_000).fit(X.astype(np.float64), positive)
    expected = plain.predict_proba(X.astype(np.float64))
    assert np.allclose(family.probabilities(0, np.arange(200)), expected, atol=1e-3)


def test_wide_rows_get_the_c_and_the_scores_of_scikit_learn_run_to_its_end(shared: Path) -> None:
    """Of the real blocks, 9,216 columns; scikit-learn solves the same rows by their coordinates in float64."""
    data = np.load(shared / "clip-vit-b16-cifake-blocks.npz")
    some = np.flatnonzero(data["set"] == "train")[::6]
    X, y, groups = (data[name][some] for name in ("blocks", "y", "c"))
    X = X.astype(np.float32).reshape(len(some), -1)
    head = LogisticProbe(grid=(10.0, 100.0, 1000.0)).fit(X, y, groups)
    kernel = unit(X).astype(np.float64) @ unit(X).astype(np.float64).T
    space = np.linalg.cholesky(kernel + 1e-12 * np.eye(len(some)))
    losses = []
    for strength in head.grid:
        plain, per_category = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000), []
        for out in (groups == one for one in np.unique(groups)):
            odds = plain.fit(space[~out], y[~out]).predict_proba(space[out])
            per_category.append(-np.log(odds[np.arange(out.sum()), y[out]]).mean())
        losses.append(np.mean(per_category))
    assert head.choice_["C"] == head.grid[int(np.argmin(losses))]
    assert head.choice_["log_loss"] == pytest.approx(min(losses), abs=1e-3)
    plain = LogisticRegression(C=head.choice_["C"], tol=1e-10, max_iter=10_000).fit(space, y)
    assert np.allclose(head.predict_proba(X), plain.predict_proba(space), atol=1e-3)


def test_a_solved_problem_among_others_that_are_not_stays_solved() -> None:
    """Folds 7 to 9 have no rows, so their problems are that of all rows, which is solved before: of their gradients
    only rounding is left, and a step along that would overflow."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 10, 3000)
    X = unit((rng.standard_normal((3000, 64)) + 0.8 * rng.standard_normal((10, 64))[codes]).astype(np.float32))
    family = LogisticFamily(X, codes, rng.integers(0, 2, 3000), np.array([0, 7, 8, 9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for strength in (0.1, 1, 10, 100, 1000, 10_000):
            family.solve(strength)
    assert np.isfinite(family.weights).all()
    assert np.allclose(family.probabilities(1, np.arange(100)), family.probabilities(2, np.arange(100)), atol=1e-3)
