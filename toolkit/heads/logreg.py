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
from toolkit.heads.base import VECTORS, fold_numbers, log_loss, unit, usable_folds
from toolkit.heads.newton import LogisticFamily

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
PATIENCE = 2

log = logging.getLogger(__name__)

MOST_COLUMNS = 4096
FEW_VALUES = 1 << 20

Folds = list[tuple[np.ndarray, np.ndarray]]
Step = tuple[list[float], np.ndarray | None]
"""The log loss on each fold, and the weights of a fit on every row."""


def _one_thread(X: np.ndarray) -> AbstractContextManager[Any]:
    """Below `FEW_VALUES` products are too short to share: 900 x 512 takes 0.3 s either way, on two threads twice the
    processor's time. 18,000 x 512 takes 2.2 s on one and 1.4 s on two."""
    return threadpool_limits(1 if X.size < FEW_VALUES else None, user_api="blas")


def _side_by_side(
    X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, usable: Folds, grid: Sequence[float]
) -> Iterator[Step]:
    """Each `C` of the grid: all folds, and the problem with every row, are solved together."""
    outs = [out for _, out in usable]
    family = LogisticFamily(X, codes, numbers, np.array([numbers[out[0]] for out in outs], dtype=np.int64))
    for strength in grid:
        family.solve(strength)
        odds = [family.probabilities(problem, out) for problem, out in enumerate(outs)]
        yield [log_loss(p, codes[out]) for p, out in zip(odds, outs, strict=True)], family.whole[:, 0]


def _one_by_one(
    X: np.ndarray, codes: np.ndarray, _: np.ndarray, usable: Folds, grid: Sequence[float]
) -> Iterator[Step]:
    """Each `C` of the grid by scikit-learn, for rows so wide that a Hessian is too large; each fold's model starts from
    its solution for the `C` before."""
    models = [LogisticRegression(solver="lbfgs", max_iter=1000, warm_start=True, tol=1e-4) for _ in usable]
    for strength in grid:
        for model, (fitting, _) in zip(models, usable, strict=True):
            model.set_params(C=strength).fit(X[fitting], codes[fitting])
        yield [log_loss(m.predict_proba(X[out]), codes[out]) for m, (_, out) in zip(models, usable, strict=True)], None


def _with_weights(strength: float, classes: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    """scikit-learn's model with `weights` `[D + 1, M]` float64, the intercepts last; `M` is 1 for two classes."""
    model = LogisticRegression(C=strength)
    model.classes_, model.n_features_in_ = classes, len(weights) - 1
    model.coef_, model.intercept_ = weights[:-1].T, weights[-1]
    return model


def _of_scikit_learn(X: np.ndarray, y: np.ndarray, strength: float, start: np.ndarray | None) -> LogisticRegression:
    """scikit-learn's own fit, from `start` `[D + 1, classes]` where that is known."""
    model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6)
    if start is not None:
        model.set_params(warm_start=True, tol=1e-8)  # with 1e-6 it would not move from where float32 arithmetic ends
        model.coef_, model.intercept_ = start[:-1].T.astype(np.float64), start[-1].astype(np.float64)
    return model.fit(X.astype(np.float64), y).set_params(warm_start=False)


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """L2-regularised logistic regression on unit vectors.

    `C` is the value of `grid` with the least mean log loss over the held-out folds; then everything is fitted with it.
    Log loss rather than accuracy: on a few hundred images, accuracies of neighbouring values differ by chance alone.
    Beyond `streamed.MOST_VALUES` a sample chooses `C`, and everything is fitted part by part; `notes_` say so.
    """

    reads = VECTORS
    needs_prompts = False

    def __init__(self, choose_by: str = "category", grid: tuple[float, ...] = GRID, seed: int = 0):
        self.choose_by = choose_by
        self.grid = grid
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "LogisticProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the categories to leave out when choosing `C`."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if streamed.is_large(X, codes):
            return self._fit_part_by_part(X, codes, groups)
        with _one_thread(X):
            return self._fit_at_once(unit(X), codes, groups)

    def _fit_at_once(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> "LogisticProbe":
        self.notes_: list[str] = []
        numbers, how = fold_numbers(codes, groups, self.choose_by, self.seed)
        losses, starts = self._losses(X, codes, numbers)
        best = int(np.argmin(losses))
        self.choice_ = {"C": self.grid[best], "log_loss": round(float(losses[best]), 4), "by": how}
        log.info("logistic regression on %d x %d: %s", *X.shape, self.choice_)
        start = starts.get(best)
        if start is not None and len(self.classes_) == 2:
            weights = streamed.solve(X, codes == 1, self.grid[best], start[:, 0])
            self.model_ = _with_weights(self.grid[best], self.classes_, weights[:, None])
        else:
            self.model_ = _of_scikit_learn(X, self.classes_[codes], self.grid[best], start)
        return self

    def _fit_part_by_part(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> "LogisticProbe":
        """The sample's model is where the fit on every row begins."""
        rows = streamed.sample(X, self.seed)
        part = LogisticProbe(self.choose_by, self.grid, self.seed)
        part.fit(X[rows], codes[rows], None if groups is None else np.asarray(groups)[rows])
        strength, start = part.model_.C, np.append(part.model_.coef_.T, part.model_.intercept_[None], axis=0)
        if len(self.classes_) == 2:
            weights = streamed.solve(X, codes == 1, strength, start[:, 0])[:, None]
        else:
            weights = streamed.solve_several(X, codes, strength, start.astype(np.float64))
        self.model_ = _with_weights(strength, self.classes_, weights)
        self.choice_ = {**part.choice_, "chosen_on": len(rows)}
        self.notes_ = [streamed.note(len(X), len(rows))]
        return self

    def _losses(
        self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Mean log loss over the folds of each `C` in the grid; infinite behind `PATIENCE` rises in a row, where no
        less regularised model was worth fitting. And weights `[D + 1, M]` of a fit on all rows for each step, if
        known; `M` is 1 for two classes, else their number."""
        usable = usable_folds(codes, numbers)
        solve = _side_by_side if codes.max() and X.shape[1] <= MOST_COLUMNS else _one_by_one
        losses, starts = np.full(len(self.grid), np.inf), {}
        for step, (scores, start) in enumerate(solve(X, codes, numbers, usable, self.grid)):
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
