"""Many logistic regressions on the same rows, side by side: neighbours share what costs the most.

One problem has every row, each of the others leaves out the rows of one fold. For a new strength the whole problem is
solved first; the others move as it moves, and start where they stand apart from it as far as before. All their
products with the rows are one matrix product, and all precondition with the Hessian of the whole problem.
Newton's method, its steps by preconditioned conjugate gradients (Nocedal & Wright 2006, algorithms 5.3 and 7.1).

numpy alone multiplies: scipy brings a BLAS with threads of its own, and the two pools wait for each other.
"""

import numpy as np

NEWTON_STEPS = 60
CONJUGATE_STEPS = 60
REDUCTION = 1e-1
TOLERANCE = 1e-8
SIDE_BY_SIDE = 32
ROWS_AT_ONCE = 8192
ROUNDING = 1e-6
EVERYTHING = -1


class LogisticFamily:
    """L2-regularised logistic regressions (scikit-learn's objective, intercept not regularised) on shared rows.

    `X` `[N, D]` float32, `positive` `[N]` bool, `numbers` `[N]` the fold of each row, `left_out` `[P]` the fold that
    each problem does without. `weights` `[D + 1, P]` float32 are the solutions, the intercepts last, and `whole`
    `[D + 1, 1]` is that of the problem with every row.
    """

    def __init__(self, X: np.ndarray, positive: np.ndarray, numbers: np.ndarray, left_out: np.ndarray):
        self.X = X
        self.target = positive.astype(np.float32)[:, None]
        self.numbers = numbers
        self.left_out = left_out
        self.weights = np.zeros((X.shape[1] + 1, len(left_out)), dtype=np.float32)
        self.whole = np.zeros((X.shape[1] + 1, 1), dtype=np.float32)
        self.penalty = np.ones((X.shape[1] + 1, 1), dtype=np.float32)
        self.penalty[-1] = 0
        self._inverse: np.ndarray | None = None

    def solve(self, strength: float) -> None:
        """Bring every problem to its optimum at C = `strength`, from where it stands."""
        if self._inverse is None:
            self._inverse = self._inverse_hessian(strength)
        before = self.whole
        self.whole = self._newton(strength, before, np.array([EVERYTHING]), self._inverse)
        self.weights += self.whole - before
        self._inverse = self._inverse_hessian(strength)
        for start in range(0, len(self.left_out), SIDE_BY_SIDE):
            some = slice(start, start + SIDE_BY_SIDE)
            self.weights[:, some] = self._newton(strength, self.weights[:, some], self.left_out[some], self._inverse)

    def probabilities(self, problem: int, rows: np.ndarray) -> np.ndarray:
        """What a problem's solution says of some rows: P(negative) and P(positive), `[len(rows), 2]` float64."""
        logits = (self.X[rows] @ self.weights[:-1, problem] + self.weights[-1, problem]).astype(np.float64)
        return np.stack([_sigmoid(-logits), _sigmoid(logits)], axis=1)

    def _inverse_hessian(self, strength: float) -> np.ndarray:
        """The inverse Hessian `[D + 1, D + 1]` float64 of the whole problem, where its solution stands."""
        share = _sigmoid(self._forward(self.whole))
        root = np.sqrt(strength * share * (1 - share))
        hessian = np.zeros((len(self.whole), len(self.whole)))
        room = np.empty((min(ROWS_AT_ONCE, len(root)), len(self.whole)), dtype=np.float32)
        for start in range(0, len(root), ROWS_AT_ONCE):  # summed in float64, multiplied in float32
            part = root[start : start + ROWS_AT_ONCE]
            scaled = room[: len(part)]
            np.multiply(self.X[start : start + ROWS_AT_ONCE], part, out=scaled[:, :-1])
            scaled[:, -1] = part[:, 0]
            hessian += scaled.T @ scaled
        hessian += np.diag(self.penalty[:, 0] + ROUNDING * np.trace(hessian) / len(hessian))
        return np.linalg.inv(hessian)

    def _newton(self, strength: float, start: np.ndarray, left_out: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """Newton's steps on a few problems at once from `start` `[D + 1, P]` -> their solutions.

        A problem that has arrived takes no further part.
        """
        solution, moving = start.copy(), np.arange(len(left_out))
        logits = self._forward(start)
        for _ in range(NEWTON_STEPS):
            weights = solution[:, moving]
            taking_part = strength * (self.numbers[:, None] != left_out[moving]).astype(np.float32)
            share = _sigmoid(logits)
            gradient = self._backward(taking_part * (share - self.target)) + self.penalty * weights
            step, change = self._direction(gradient, taking_part * share * (1 - share), inverse)
            gain = -(step * gradient).sum(axis=0) / 2
            length = self._length(weights, logits, step, change, taking_part)
            solution[:, moving] = weights + length * step
            far = gain > TOLERANCE * taking_part.sum(axis=0)
            if not far.any():
                break
            logits = (logits + length * change)[:, far]
            moving = moving[far]
        return solution

    def _direction(
        self, gradient: np.ndarray, curvature: np.ndarray, inverse: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Newton's step `[D + 1, P]` and how it changes the logits `[N, P]`."""
        step, change = np.zeros_like(gradient), np.zeros_like(curvature)
        residual, towards = -gradient, (inverse @ -gradient).astype(np.float32)
        conjugate, size = towards, (residual * towards).sum(axis=0)
        enough = REDUCTION * size
        for _ in range(CONJUGATE_STEPS):
            forward = self._forward(conjugate)
            bent = self._backward(curvature * forward) + self.penalty * conjugate
            length = size / np.maximum((conjugate * bent).sum(axis=0), 1e-30)
            step += length * conjugate
            change += length * forward
            residual = residual - length * bent
            towards = (inverse @ residual).astype(np.float32)
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
