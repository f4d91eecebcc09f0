"""A logistic-regression probe on frozen embeddings: the linear probe of Radford et al. 2021 (appendix A.3)."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.heads.base import fold_numbers, folds, log_loss, unit

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """L2-regularised logistic regression on unit vectors.

    `C` is the value of `grid` with the least mean log loss over the held-out folds; then everything is fitted with it.
    Log loss rather than accuracy: on a few hundred images, accuracies of neighbouring values differ by chance alone.
    """

    def __init__(self, choose_by: str = "category", grid: tuple[float, ...] = GRID, seed: int = 0):
        self.choose_by = choose_by
        self.grid = grid
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "LogisticProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the categories to leave out when choosing `C`."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        X, y = unit(X), np.asarray(y)
        numbers, how = fold_numbers(y, groups, self.choose_by, self.seed)
        losses = self._losses(X, y, numbers)
        best = int(np.argmin(losses))
        self.choice_ = {"C": self.grid[best], "log_loss": round(float(losses[best]), 4), "by": how}
        self.model_ = self._fit(X, y, [self.grid[best]])[0]
        self.classes_ = self.model_.classes_
        return self

    def _losses(self, X: np.ndarray, y: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Mean log loss over the folds of each `C` in the grid."""
        codes = np.unique(y, return_inverse=True)[1]
        losses = []
        for fitting, held_out in folds(numbers):
            if len(np.unique(y[fitting])) == len(np.unique(y)):
                models = self._fit(X[fitting], y[fitting], list(self.grid))
                losses.append([log_loss(model.predict_proba(X[held_out]), codes[held_out]) for model in models])
        return np.mean(losses, axis=0) if losses else np.zeros(len(self.grid))

    def _fit(self, X: np.ndarray, y: np.ndarray, grid: list[float]) -> list[LogisticRegression]:
        """One model for each `C`, each starting from its neighbour's solution."""
        models = []
        start = LogisticRegression(solver="lbfgs", max_iter=5000, warm_start=True, tol=1e-5)
        for strength in grid:
            start.set_params(C=strength)
            start.fit(X, y)
            models.append(_copy(start))
        return models

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return np.asarray(self.model_.predict_proba(unit(X)), dtype=np.float64)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likelier class of each row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _copy(model: LogisticRegression) -> LogisticRegression:
    copy = LogisticRegression(**model.get_params())
    copy.classes_, copy.coef_, copy.intercept_ = model.classes_, model.coef_.copy(), model.intercept_.copy()
    copy.n_iter_, copy.n_features_in_ = model.n_iter_, model.n_features_in_
    return copy
