"""A logistic-regression probe on frozen embeddings: the linear probe of Radford et al. 2021 (appendix A.3)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from toolkit.heads import streamed
from toolkit.heads.base import (
    BY_DEFAULT,
    VECTORS,
    LeftOut,
    Tried,
    at_edge,
    fold_numbers,
    is_wide,
    log_loss,
    row_space,
    rows_to_choose_on,
    unit,
    usable_folds,
)
from toolkit.heads.classifier import Classifier
from toolkit.heads.newton import LogisticFamily

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
PATIENCE = 2

log = logging.getLogger(__name__)

DEFAULT = 1.0
"""C if cross-validation is impossible: scikit-learn's default."""
FEW_VALUES = 1 << 20

Folds = list[tuple[np.ndarray, np.ndarray]]
Step = tuple[float, np.ndarray, list[np.ndarray]]
"""The mean log loss over the folds; the weights `[D + 1, M]` of a fit on every row, where `M` is 1 for two classes; and
each fold's probabilities `[H, classes]`."""


def _one_thread(X: np.ndarray) -> AbstractContextManager[Any]:
    """One thread below `FEW_VALUES`, where two bring nothing: 900 x 512 takes 0.3 s on one thread and on two, with
    twice the CPU time. 18,000 x 512 takes 2.2 s on one and 1.4 s on two."""
    return threadpool_limits(1 if X.size < FEW_VALUES else None, user_api="blas")


def _path(
    X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, usable: Folds, grid: Sequence[float]
) -> Iterator[Step]:
    """A step for each `C` of the grid; the fits of all folds and the fit on every row are solved together."""
    outs = [out for _, out in usable]
    family = LogisticFamily(X, codes, numbers, np.array([numbers[out[0]] for out in outs], dtype=np.int64))
    for strength in grid:
        family.solve(strength)
        found = [family.probabilities(problem, out) for problem, out in enumerate(outs)]
        loss = float(np.mean([log_loss(p, codes[out]) for p, out in zip(found, outs, strict=True)]))
        yield loss, family.whole[:, 0], found


def _with_weights(strength: float, classes: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    """scikit-learn's model with `weights` `[D + 1, M]` float64, the intercepts last; `M` is 1 for two classes."""
    model = LogisticRegression(C=strength)
    model.classes_, model.n_features_in_ = classes, len(weights) - 1
    model.coef_, model.intercept_ = weights[:-1].T, weights[-1]
    return model


def _of_scikit_learn(X: np.ndarray, y: np.ndarray, strength: float, start: np.ndarray | None) -> LogisticRegression:
    """scikit-learn's own fit, warm-started from `start` `[D + 1, classes]` if given."""
    model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6)
    if start is not None:
        model.set_params(warm_start=True, tol=1e-8)  # with 1e-6 it would stop at once at the float32 solution
        model.coef_, model.intercept_ = start[:-1].T.astype(np.float64), start[-1].astype(np.float64)
    return model.fit(X.astype(np.float64), y).set_params(warm_start=False)


class LogisticProbe(Classifier):
    """L2-regularised logistic regression on unit vectors.

    `C` is the value of `grid` with the lowest mean log loss over the held-out folds; the final fit uses all rows. Log
    loss, not accuracy: on a few hundred images the accuracies of neighbouring values differ only by chance. Beyond
    `streamed.MOST_VALUES` values, `C` is chosen on a sample and the final fit reads the rows in parts; `notes_` say so.
    """

    reads = VECTORS
    needs_prompts = False
    learns = True

    def __init__(self, choose_by: str = "category", grid: tuple[float, ...] = GRID, seed: int = 0):
        self.choose_by = choose_by
        self.grid = grid
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "LogisticProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the categories, the folds that choose `C`."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("a logistic regression needs two classes, and there is only one class")
        if streamed.is_large(X):
            return self._fit_part_by_part(X, codes, groups)
        with _one_thread(X):
            return self._fit_at_once(unit(X), codes, groups)

    def _fit_at_once(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> "LogisticProbe":
        self.notes_: list[str] = []
        numbers, how = fold_numbers(codes, groups, self.choose_by, self.seed)
        rows = rows_to_choose_on(X, codes, self.seed)
        some, basis = row_space(X[rows]) if is_wide(X) else (X, None)
        strength, loss, start = self._chosen(some, codes[rows], numbers[rows], rows)
        how = how if self.left_out_ else BY_DEFAULT
        self.choice_: dict[str, Any] = {"C": strength, "log_loss": loss, "by": how}
        self.choice_ |= at_edge(Tried("C", strength, self.grid))
        if len(rows) < len(X):
            self.choice_["chosen_on"] = len(rows)
            self.model_ = _of_scikit_learn(X, self.classes_[codes], strength, None)
        elif start is not None and len(self.classes_) == 2:
            weights = streamed.solve(some, codes == 1, strength, start[:, 0])
            self.model_ = _with_weights(strength, self.classes_, weights[:, None])
        else:
            self.model_ = _of_scikit_learn(some, self.classes_[codes], strength, start)
        if basis is not None and len(rows) == len(X):
            self.model_.coef_, self.model_.n_features_in_ = self.model_.coef_ @ basis.T, len(basis)
        log.info("logistic regression on %d x %d: %s", *X.shape, self.choice_)
        return self

    def _chosen(
        self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, rows: np.ndarray
    ) -> tuple[float, float | None, np.ndarray | None]:
        """`C`, its mean log loss over the folds, and the weights of a fit on every row. Sets `left_out_`, in which `X`
        are the training rows `rows`.

        The search stops when the loss has risen `PATIENCE` times in a row. Without folds, `C` is the value of the grid
        nearest to `DEFAULT`, and loss and weights are None.
        """
        usable = usable_folds(codes, numbers)
        self.left_out_: LeftOut | None = None
        if not usable:
            return min(self.grid, key=lambda one: abs(np.log(one / DEFAULT))), None, None
        losses: list[float] = []
        starts = []
        for loss, start, found in _path(X, codes, numbers, usable, self.grid):
            if loss < min(losses, default=np.inf):
                self.left_out_ = LeftOut.of([rows[out] for _, out in usable], found)
            losses.append(loss)
            starts.append(start)
            if len(losses) > PATIENCE and (np.diff(losses[-PATIENCE - 1 :]) > 0).all():
                break
        best = int(np.argmin(losses))
        return self.grid[best], round(losses[best], 4), starts[best]

    def _fit_part_by_part(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> "LogisticProbe":
        """Fit a sample, which chooses `C`; its weights are the starting point of the fit on every row."""
        rows = streamed.sample(X, codes, self.seed)
        part = LogisticProbe(self.choose_by, self.grid, self.seed)
        part.fit(X[rows], codes[rows], None if groups is None else np.asarray(groups)[rows])
        strength, start = part.model_.C, np.append(part.model_.coef_.T, part.model_.intercept_[None], axis=0)
        if len(self.classes_) == 2:
            weights = streamed.solve(X, codes == 1, strength, start[:, 0])[:, None]
        else:
            weights = streamed.solve_several(X, codes, strength, start.astype(np.float64))
        self.model_ = _with_weights(strength, self.classes_, weights)
        self.choice_ = {**part.choice_, "chosen_on": len(rows)}
        self.left_out_ = replace(part.left_out_, rows=rows[part.left_out_.rows]) if part.left_out_ else None
        self.notes_ = [streamed.note(len(X), len(rows))]
        return self

    @property
    def parameters_(self) -> int:
        """How many numbers were trained."""
        return int(self.model_.coef_.size + self.model_.intercept_.size)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return np.asarray(self.model_.predict_proba(unit(X)), dtype=np.float64)
