"""Logistic regression on rows too many to copy in memory: Newton's method, its sums computed in parts.

Newton's method needs two sums over the rows, the gradient and the Hessian. Their size does not depend on the number of
rows, so each step is one pass over the parts, and about ten steps reach the same optimum as scikit-learn's solver
(Nocedal & Wright 2006, algorithm 3.2). Stochastic gradient descent would only come close. With more than two classes
the Hessian is too large, and L-BFGS is used (section 7.2 there). The rows are never copied as a whole, so they may be a
memory-mapped file.
"""

import numpy as np

from toolkit.heads.base import unit, with_rare_classes

MOST_VALUES = 1 << 28
"""The most values fitted in one piece: 524,288 rows of 512 columns, 1 GiB as float32, 4 GiB while fitting."""

SAMPLE = 100_000
"""The number of rows on which `C` is chosen if there are more values than `MOST_VALUES`."""

ROWS_AT_ONCE = 16_384
STEPS, MOST_PASSES = 40, 1000
TOLERANCE = 1e-9


def is_large(X: np.ndarray) -> bool:
    """Whether `X` `[N, D]` has to be fitted in parts."""
    return X.size > MOST_VALUES


def sample(X: np.ndarray, codes: np.ndarray, seed: int) -> np.ndarray:
    """Sorted numbers of random rows on which `C` is chosen, about `MOST_VALUES` values at most."""
    count = min(SAMPLE, MOST_VALUES // X.shape[1])
    return with_rare_classes(np.random.default_rng(seed).choice(len(X), count, replace=False), codes)


def solve(X: np.ndarray, positive: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
    """The weights `[D + 1]` float64, intercept last, of L2-regularised logistic regression with C = `strength`.

    Each row of `X` `[N, D]` is scaled to unit length, `positive` `[N]` is bool, `start` `[D + 1]` the initial weights.
    The objective is scikit-learn's: half the squared weights without the intercept, plus C times the sum of log losses.
    """
    from scipy.linalg import solve as solve_linear

    penalty = np.append(np.ones(X.shape[1]), 0.0)
    weights = start.astype(np.float64)
    objective, gradient, hessian = _sums(X, positive, strength, weights, penalty)
    for _ in range(STEPS):
        step = -solve_linear(hessian, gradient, assume_a="pos")
        if -(step @ gradient) / 2 <= TOLERANCE * strength * len(X):
            return weights + step
        length = 1.0
        while True:
            ahead = _sums(X, positive, strength, weights + length * step, penalty)
            if ahead[0] <= objective or length < 1e-6:
                break
            length /= 2
        weights, (objective, gradient, hessian) = weights + length * step, ahead
    return weights


def _sums(
    X: np.ndarray, positive: np.ndarray, strength: float, weights: np.ndarray, penalty: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Objective, gradient `[D + 1]` and Hessian `[D + 1, D + 1]` at `weights`: one pass over the rows."""
    objective = float(penalty @ weights**2) / 2
    gradient, hessian = penalty * weights, np.diag(penalty + 1e-10)
    for start in range(0, len(X), ROWS_AT_ONCE):
        rows = unit(X[start : start + ROWS_AT_ONCE])
        rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
        sign = np.where(positive[start : start + ROWS_AT_ONCE], 1.0, -1.0)
        margin = sign * (rows @ weights.astype(np.float32)).astype(np.float64)
        wrong = (1 - np.tanh(margin / 2)) / 2
        objective += strength * float(np.logaddexp(0, -margin).sum())
        gradient -= strength * ((sign * wrong).astype(np.float32) @ rows)
        curved = np.sqrt(strength * wrong * (1 - wrong)).astype(np.float32)[:, None] * rows
        hessian += curved.T @ curved
    return objective, gradient, hessian


def solve_several(X: np.ndarray, codes: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
    """`solve` for more than two classes: the weights `[D + 1, classes]` float64 that minimise scikit-learn's softmax
    objective. `codes` `[N]` are class numbers, `start` the initial weights."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    def sums(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape)
        objective, gradient = float((weights[:-1] ** 2).sum()) / 2, weights.copy()
        gradient[-1] = 0
        for first in range(0, len(X), ROWS_AT_ONCE):
            rows = unit(X[first : first + ROWS_AT_ONCE]).astype(
                np.float64
            )  # in float32 L-BFGS stops before the optimum
            mine = codes[first : first + ROWS_AT_ONCE]
            logs = log_softmax(rows @ weights[:-1] + weights[-1], axis=1)
            objective -= strength * float(logs[np.arange(len(mine)), mine].sum())
            wrong = np.exp(logs)
            wrong[np.arange(len(mine)), mine] -= 1
            gradient[:-1] += strength * (rows.T @ wrong)
            gradient[-1] += strength * wrong.sum(axis=0)
        return objective / (strength * len(X)), gradient.ravel() / (strength * len(X))

    options = {"maxiter": MOST_PASSES, "ftol": 1e-13, "gtol": 1e-8, "maxcor": 20}
    return minimize(sums, start.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(start.shape)


def note(rows: int, chosen_on: int) -> str:
    """A line for the user."""
    return f"logreg: {rows:,} training images are fitted part by part; C was chosen on {chosen_on:,} of them."
