"""A logistic-regression probe on frozen embeddings: the linear probe of Radford et al. 2021 (appendix A.3)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from toolkit.heads import streamed
from toolkit.heads.base import fold_numbers, folds, log_loss, unit
from toolkit.heads.newton import EVERYTHING, LogisticFamily

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
PATIENCE = 2

log = logging.getLogger(__name__)

MOST_COLUMNS = 4096
FEW_VALUES = 1 << 25

Folds = list[tuple[np.ndarray, np.ndarray]]
Step = tuple[list[float], np.ndarray | None]
"""The log loss on each fold, and the weights of a fit on every row."""


def _exact_solver(X: np.ndarray) -> str:
    """Newton's method where its matrix of columns times columns is small, as it is for embeddings."""
    return "newton-cholesky" if X.shape[1] <= MOST_COLUMNS else "lbfgs"


def _one_thread(X: np.ndarray) -> AbstractContextManager[Any]:
    """Below `FEW_VALUES`, products are so short that the threads of numpy's BLAS and of scipy's mostly wait for each
    other: 900 x 256 takes 0.09 s on one thread and 1.2 s on two, 18,000 x 256 0.8 s and 1.4 s."""
    return threadpool_limits(1 if X.size < FEW_VALUES else None, user_api="blas")


def _side_by_side(
    X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, usable: Folds, grid: Sequence[float]
) -> Iterator[Step]:
    """Each `C` of the grid for two classes: all folds, and the problem with every row, are solved together."""
    outs = [out for _, out in usable]
    family = LogisticFamily(X, codes == 1, numbers, np.array([*(numbers[out[0]] for out in outs), EVERYTHING]))
    for strength in grid:
        family.solve(strength)
        odds = [family.probabilities(problem, out) for problem, out in enumerate(outs)]
        yield [log_loss(p, codes[out]) for p, out in zip(odds, outs, strict=True)], family.weights[:, -1]


def _one_by_one(X: np.ndarray, y: np.ndarray, usable: Folds, grid: Sequence[float]) -> Iterator[Step]:
    """Each `C` of the grid for any number of classes; each fold's model starts from its solution for the `C` before."""
    codes = np.unique(y, return_inverse=True)[1]
    models = [LogisticRegression(solver="lbfgs", max_iter=1000, warm_start=True, tol=1e-4) for _ in usable]
    for strength in grid:
        for model, (fitting, _) in zip(models, usable, strict=True):
            model.set_params(C=strength).fit(X[fitting], y[fitting])
        yield [log_loss(m.predict_proba(X[out]), codes[out]) for m, (_, out) in zip(models, usable, strict=True)], None


def _start_from(model: LogisticRegression, weights: np.ndarray | None) -> None:
    """Let the next fit of a two-class model begin at `weights` `[D + 1]`, the intercept last."""
    if weights is not None:
        model.set_params(warm_start=True)
        model.coef_, model.intercept_ = weights[None, :-1].astype(np.float64), weights[-1:].astype(np.float64)


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """L2-regularised logistic regression on unit vectors.

    `C` is the value of `grid` with the least mean log loss over the held-out folds; then everything is fitted with it.
    Log loss rather than accuracy: on a few hundred images, accuracies of neighbouring values differ by chance alone.
    Beyond `streamed.MOST_VALUES` a sample chooses `C`, and everything is fitted part by part; `notes_` say so.
    """

    def __init__(self, choose_by: str = "category", grid: tuple[float, ...] = GRID, seed: int = 0):
        self.choose_by = choose_by
        self.grid = grid
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "LogisticProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the categories to leave out when choosing `C`."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        if streamed.is_large(X, y):
            return self._fit_part_by_part(X, np.asarray(y), groups)
        with _one_thread(X):
            return self._fit_at_once(unit(X), np.asarray(y), groups)

    def _fit_at_once(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> "LogisticProbe":
        self.notes_: list[str] = []
        numbers, how = fold_numbers(y, groups, self.choose_by, self.seed)
        losses, starts = self._losses(X, y, numbers)
        best = int(np.argmin(losses))
        self.choice_ = {"C": self.grid[best], "log_loss": round(float(losses[best]), 4), "by": how}
        log.info("scikit-learn %s on %d x %d: %s", _exact_solver(X), *X.shape, self.choice_)
        model = LogisticRegression(C=self.grid[best], solver=_exact_solver(X), max_iter=5000, tol=1e-6)
        _start_from(model, starts.get(best))
        self.model_ = model.fit(X.astype(np.float64), y)  # in float32, Newton's matrix can be too close to singular
        self.model_.set_params(warm_start=False)
        self.classes_ = self.model_.classes_
        return self

    def _fit_part_by_part(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> "LogisticProbe":
        """The sample's model is where the fit on every row begins."""
        rows = streamed.sample(X, self.seed)
        part = LogisticProbe(self.choose_by, self.grid, self.seed)
        part.fit(X[rows], y[rows], None if groups is None else np.asarray(groups)[rows])
        self.model_, self.classes_ = part.model_, part.classes_
        start = np.append(self.model_.coef_[0], self.model_.intercept_)
        weights = streamed.solve(X, y == self.classes_[1], self.model_.C, start)
        self.model_.coef_, self.model_.intercept_ = weights[None, :-1], weights[-1:]
        self.choice_ = {**part.choice_, "chosen_on": len(rows)}
        self.notes_ = [streamed.note(len(X), len(rows))]
        return self

    def _losses(self, X: np.ndarray, y: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Mean log loss over the folds of each `C` in the grid; infinite behind `PATIENCE` rises in a row, where no
        less regularised model was worth fitting. And weights `[D + 1]` of a fit on all rows for each step, if known."""
        codes = np.unique(y, return_inverse=True)[1]
        usable = [(fit, out) for fit, out in folds(numbers) if len(np.unique(y[fit])) == codes.max() + 1]
        two = codes.max() == 1 and X.shape[1] <= MOST_COLUMNS
        steps = _side_by_side(X, codes, numbers, usable, self.grid) if two else _one_by_one(X, y, usable, self.grid)
        losses, starts = np.full(len(self.grid), np.inf), {}
        for step, (scores, start) in enumerate(steps):
            losses[step] = np.mean(scores) if scores else 0.0
            starts.update({step: start} if start is not None else {})
            if step >= PATIENCE and (np.diff(losses[step - PATIENCE : step + 1]) > 0).all():
                break
        return losses, starts

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return np.asarray(self.model_.predict_proba(unit(X)), dtype=np.float64)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likelier class of each row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
