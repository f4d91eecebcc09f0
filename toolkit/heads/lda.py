"""Linear discriminant analysis with a shrunk covariance (Wang et al. 2024, "A Hard-to-Beat Baseline for Training-free
CLIP-based Adaptation", section 3): Gaussian classes with a shared covariance, computed in closed form.

The inverse covariance is the empirical Bayes ridge estimator of Kubokawa & Srivastava (2008), as in the paper:
`D ((N - 1) S + tr(S) I)^-1`. The paper adds the logits of prompts; here only images are used, so that the head also
works for encoders without text.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.heads.base import (
    BY_DEFAULT,
    VECTORS,
    LeftOut,
    Tried,
    at_edge,
    fold_numbers,
    log_loss,
    row_space,
    rows_to_choose_on,
    softmax,
    unit,
    usable_folds,
)
from toolkit.heads.classifier import Classifier

BOUNDS = (1e-2, 1e3)
"""Bounds of the temperature."""
NEAREST_MEAN = 0.07
"""The temperature of cosines if no covariance can be estimated: the same as for prompts."""
ROUNDING = 1e-6
"""A smaller share of variance within classes is rounding error: each class has one image, or equal ones."""
ROWS_AT_ONCE = 8192

Linear = tuple[np.ndarray, np.ndarray]
"""Weights `[D, classes]` and constants `[classes]`, float64."""


class DiscriminantAnalysis(Classifier):
    """Gaussian classes with one shrunk covariance, on unit vectors; P is the softmax of the logits over a temperature.

    All classes have the same prior, as in the paper: the user chose the numbers of training images, so they tell
    nothing about new images. At temperature 1, P is that of Gaussians with the covariance `S + tr(S) / (N - 1) I`. Its
    inverse is the paper's estimator times `(N - 1) / D`: without that factor, P would be overconfident with many
    columns and underconfident with many rows. The temperature is the one with the lowest mean log loss over the
    held-out folds; it never changes the predicted class.
    """

    reads = VECTORS
    needs_prompts = False
    learns = True

    def __init__(self, choose_by: str = "category", seed: int = 0):
        self.choose_by = choose_by
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "DiscriminantAnalysis":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the categories, the folds that choose."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("a discriminant analysis needs two classes, and there is only one class")
        X = unit(X)
        numbers, how = fold_numbers(codes, groups, self.choose_by, self.seed)
        rows = rows_to_choose_on(X, codes, self.seed)
        whole = _Gaussians(X, codes)
        choosing = whole if len(rows) == len(X) else _Gaussians(X[rows], codes[rows])
        held_out = list(choosing.left_out(numbers[rows]))
        temperature, loss = _temperature([(logits, choosing.codes[out]) for logits, out in held_out])
        shares = [softmax(logits / temperature) for logits, _ in held_out]
        self.left_out_ = LeftOut.of([rows[out] for _, out in held_out], shares)
        weights, constants = whole.linear()
        self.coef_, self.intercept_ = np.ascontiguousarray(weights.T) / temperature, constants / temperature
        how = how if held_out else BY_DEFAULT
        self.choice_: dict[str, Any] = {"temperature": temperature, "log_loss": loss, "by": how}
        self.choice_ |= at_edge(Tried("temperature", temperature, BOUNDS))
        if len(rows) < len(X):
            self.choice_["chosen_on"] = len(rows)
        return self

    @property
    def parameters_(self) -> int:
        """How many numbers were trained."""
        return int(self.coef_.size + self.intercept_.size)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return softmax(unit(X) @ self.coef_.T + self.intercept_)


class _Gaussians:
    """Rows `[N, D]` with class numbers `codes` `[N]`, and the sums from which means and covariance are computed."""

    def __init__(self, X: np.ndarray, codes: np.ndarray):
        self.codes = codes
        self.middle = X.mean(axis=0, dtype=np.float64)
        self.basis: np.ndarray | None = None
        self.rows = X - self.middle.astype(np.float32)
        if len(X) < X.shape[1]:
            self.rows, self.basis = row_space(self.rows)
        self.moments = _moments(self.rows, codes, codes.max() + 1)

    def linear(self) -> Linear:
        """The classifier fitted on all rows, at temperature 1."""
        weights, constants = _solve(*self.moments)
        weights = weights if self.basis is None else self.basis @ weights
        return weights, constants - self.middle @ weights

    def left_out(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each fold: logits `[H, classes]` of its rows, fitted on the other rows, and the rows' numbers `[H]`.

        Sums over the other rows are the total minus the fold's sums, so one pass over the rows serves all folds. A
        fold is skipped if the other rows have only one row per class, which gives no covariance.
        """
        for fitting, out in usable_folds(self.codes, numbers):
            if len(np.unique(self.codes[fitting])) < len(fitting):
                of_fold = _moments(self.rows[out], self.codes[out], self.codes.max() + 1)
                weights, constants = _solve(*(all_ - its for all_, its in zip(self.moments, of_fold, strict=True)))
                yield self.rows[out] @ weights + constants, out


def _moments(X: np.ndarray, codes: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Second moments `[D, D]` and class sums `[classes, D]`, float64, and the number of rows per class `[classes]`."""
    moment, sums = np.zeros((X.shape[1], X.shape[1])), np.zeros((classes, X.shape[1]))
    for start in range(0, len(X), ROWS_AT_ONCE):  # summed in float64, multiplied in float32
        part, its = X[start : start + ROWS_AT_ONCE], codes[start : start + ROWS_AT_ONCE]
        moment += part.T @ part
        sums += (its == np.arange(classes)[:, None]).astype(np.float32) @ part
    return moment, sums, np.bincount(codes, minlength=classes)


def _solve(moment: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> Linear:
    """The linear discriminants from these moments, with the covariance `S + tr(S) / (N - 1) I`."""
    from scipy.linalg import solve

    means = sums / counts[:, None]
    scatter = moment - sums.T @ means
    if np.trace(scatter) <= ROUNDING * np.trace(moment):  # no covariance: take the nearest class mean
        return means.T / NEAREST_MEAN, -(means**2).sum(axis=1) / 2 / NEAREST_MEAN
    ridge = np.trace(scatter) / (counts.sum() - 1)
    weights = (counts.sum() - 1) * solve(scatter + ridge * np.eye(len(scatter)), means.T, assume_a="pos")
    return weights, -(means * weights.T).sum(axis=1) / 2


def _temperature(held_out: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float | None]:
    """The temperature with the lowest mean log loss over the folds (their logits and classes), and that loss."""
    from scipy.optimize import minimize_scalar

    def mean_loss(exponent: float) -> float:
        return float(np.mean([log_loss(softmax(logits / np.exp(exponent)), codes) for logits, codes in held_out]))

    if not held_out:
        return 1.0, None
    found = minimize_scalar(mean_loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-3})
    return float(f"{np.exp(found.x):.4g}"), round(float(found.fun), 4)
