"""Many logistic regressions on the same rows, side by side: neighbours share what costs the most.

Each problem leaves out the rows of one fold. All their products with the rows are one matrix product, all precondition
with the Hessian of the problem that leaves out nothing, and each goes on from its solution for the strength before.
Newton's method, its steps by preconditioned conjugate gradients (Nocedal & Wright 2006, algorithms 5.3 and 7.1).
"""

from collections.abc import Callable

import numpy as np

NEWTON_STEPS = 60
CONJUGATE_STEPS = 60
REDUCTION = 1e-2
TOLERANCE = 1e-7
SIDE_BY_SIDE = 32
ROWS_AT_ONCE = 8192
ROUNDING = 1e-6
EVERYTHING = -1

Inverse = Callable[[np.ndarray], np.ndarray]


class LogisticFamily:
    """L2-regularised logistic regressions (scikit-learn's objective, intercept not regularised) on shared rows.

    `X` `[N, D]` float32, `positive` `[N]` bool, `numbers` `[N]` the fold of each row, `left_out` `[P]` the fold that
    each problem does without; `EVERYTHING` for none. `weights` `[D + 1, P]` float32 are the solutions, the intercepts
    last.
    """

    def __init__(self, X: np.ndarray, positive: np.ndarray, numbers: np.ndarray, left_out: np.ndarray):
        self.X = X
        self.target = positive.astype(np.float32)[:, None]
        self.numbers = numbers
        self.left_out = left_out
        self.weights = np.zeros((X.shape[1] + 1, len(left_out)), dtype=np.float32)
        self.penalty = np.ones((X.shape[1] + 1, 1), dtype=np.float32)
        self.penalty[-1] = 0

    def solve(self, strength: float) -> None:
        """Bring every problem to its optimum at C = `strength`, from where it stands."""
        inverse = self._inverse_hessian(strength)
        for start in range(0, len(self.left_out), SIDE_BY_SIDE):
            self._newton(strength, np.arange(start, min(start + SIDE_BY_SIDE, len(self.left_out))), inverse)

    def probabilities(self, problem: int, rows: np.ndarray) -> np.ndarray:
        """What a problem's solution says of some rows: P(negative) and P(positive), `[len(rows), 2]` float64."""
        logits = (self.X[rows] @ self.weights[:-1, problem] + self.weights[-1, problem]).astype(np.float64)
        return np.stack([_sigmoid(-logits), _sigmoid(logits)], axis=1)

    def _inverse_hessian(self, strength: float) -> Inverse:
        """The inverse Hessian of the problem with every row, where the mean of the solutions stands."""
        from scipy.linalg import cho_factor, cho_solve

        share = _sigmoid(self._forward(self.weights.mean(axis=1, keepdims=True)))
        root = np.sqrt(strength * share * (1 - share))
        hessian = np.zeros((len(self.weights), len(self.weights)))
        for start in range(0, len(root), ROWS_AT_ONCE):  # summed in float64, multiplied in float32
            part = root[start : start + ROWS_AT_ONCE]
            scaled = np.concatenate([self.X[start : start + ROWS_AT_ONCE] * part, part], axis=1)
            hessian += scaled.T @ scaled
        hessian += np.diag(self.penalty[:, 0] + ROUNDING * np.trace(hessian) / len(hessian))
        factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)

        def inverse(gradient: np.ndarray) -> np.ndarray:
            return np.asarray(cho_solve(factor, gradient, check_finite=False), dtype=np.float32)

        return inverse

    def _newton(self, strength: float, problems: np.ndarray, inverse: Inverse) -> None:
        """Newton's steps on a few problems at once; one that has arrived takes no further part."""
        logits = self._forward(self.weights[:, problems])
        for _ in range(NEWTON_STEPS):
            weights = self.weights[:, problems]
            taking_part = strength * (self.numbers[:, None] != self.left_out[problems]).astype(np.float32)
            share = _sigmoid(logits)
            gradient = self._backward(taking_part * (share - self.target)) + self.penalty * weights
            step, change = self._direction(gradient, taking_part * share * (1 - share), inverse)
            gain = -(step * gradient).sum(axis=0) / 2
            length = self._length(weights, logits, step, change, taking_part)
            self.weights[:, problems] = weights + length * step
            far = gain > TOLERANCE * taking_part.sum(axis=0)
            if not far.any():
                return
            logits = (logits + length * change)[:, far]
            problems = problems[far]

    def _direction(
        self, gradient: np.ndarray, curvature: np.ndarray, inverse: Inverse
    ) -> tuple[np.ndarray, np.ndarray]:
        """Newton's step `[D + 1, P]` and how it changes the logits `[N, P]`."""
        step, change = np.zeros_like(gradient), np.zeros_like(curvature)
        residual, towards = -gradient, inverse(-gradient)
        conjugate, size = towards, (residual * towards).sum(axis=0)
        enough = REDUCTION * size
        for _ in range(CONJUGATE_STEPS):
            forward = self._forward(conjugate)
            bent = self._backward(curvature * forward) + self.penalty * conjugate
            length = size / np.maximum((conjugate * bent).sum(axis=0), 1e-30)
            step += length * conjugate
            change += length * forward
            residual = residual - length * bent
            towards = inverse(residual)
            before, size = size, (residual * towards).sum(axis=0)
            if (size <= enough).all():
                break
            conjugate = towards + size / np.maximum(before, 1e-30) * conjugate
        return step, change

    def _length(
        self, weights: np.ndarray, logits: np.ndarray, step: np.ndarray, change: np.ndarray, taking_part: np.ndarray
    ) -> np.ndarray:
        """How far each problem follows its step `[P]`: halved until its objective falls."""
        before = self._objective(weights, logits, taking_part)
        length = np.ones(weights.shape[1], dtype=np.float32)
        for _ in range(20):
            worse = self._objective(weights + length * step, logits + length * change, taking_part) > before
            if not worse.any():
                break
            length[worse] /= 2
        return length

    def _objective(self, weights: np.ndarray, logits: np.ndarray, taking_part: np.ndarray) -> np.ndarray:
        loss = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits))) - self.target * logits
        data = (taking_part * loss).sum(axis=0, dtype=np.float64)
        return data + (weights[:-1].astype(np.float64) ** 2).sum(axis=0) / 2

    def _forward(self, weights: np.ndarray) -> np.ndarray:
        return self.X @ weights[:-1] + weights[-1]

    def _backward(self, slopes: np.ndarray) -> np.ndarray:
        return np.concatenate([self.X.T @ slopes, slopes.sum(axis=0, keepdims=True)])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(logits / 2)) / 2
