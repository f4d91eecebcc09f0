"""Logistic regressions for cross-validation: the fit on all rows and the fit without each fold, solved together.

For each new C, the fit on all rows is solved first. Each fold's fit starts from its own solution for the previous C,
plus the change of the full fit. The products of all fits with the rows are computed as one matrix product, and every
fit is preconditioned with the Hessian of the full fit. The method is Newton's; its steps come from preconditioned
conjugate gradients (Nocedal & Wright 2006, algorithms 5.3 and 7.1).

We have our own solver because scikit-learn's take about four times as long or longer to choose C and fit (90,000 x 512,
one thread, CPU time). Two classes, nine folds: 15 s here, 16 s for one fold with newton-cholesky. Ten classes, five
folds: 32 s here, 25 s for one fold and three values of C with lbfgs and tol=1e-6. With its default tol=1e-4, lbfgs is
as fast, but returns the solution for the previous C. With more than two classes, scikit-learn does the final fit. Rows
with more columns than `base.MOST_COLUMNS` are given as coordinates in their span.

Products use numpy's BLAS only: scipy has another one with its own threads, and the two block each other.
"""

import numpy as np

NEWTON_STEPS = 60
CONJUGATE_STEPS = 60
REDUCTION = 1e-1
TOGETHER = 1 << 24
"""So many logits at most are computed together (64 MiB an array): 90 columns take 1.7 times as long as 30."""
ROWS_AT_ONCE = 8192
ROUNDING = 1e-6
NOISE = 1e-6
"""A curvature below this share of its terms is float32's rounding: a step along it would overflow."""
EVERYTHING = -1


class _Sigmoid:
    """Two classes: one logit, for the second class. Logits and probabilities (`shares`) are `[N, P, 1]`."""

    TOLERANCE = 1e-8

    @staticmethod
    def targets(codes: np.ndarray) -> np.ndarray:
        return (codes == 1).astype(np.float32)[:, None, None]

    @staticmethod
    def shares(logits: np.ndarray) -> np.ndarray:
        return (1 + np.tanh(logits / 2)) / 2

    @staticmethod
    def bent(weighted: np.ndarray, shares: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Row weights times the derivative of the probabilities along `change`, a change of the logits; `weighted` is
        row weights times probabilities."""
        return weighted * (1 - shares) * change

    @staticmethod
    def losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """-log P(right class) `[N, P]`."""
        return (np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits))) - targets * logits)[..., 0]

    @classmethod
    def probabilities(cls, logits: np.ndarray) -> np.ndarray:
        return cls.shares(np.concatenate([-logits, logits], axis=-1))


class _Softmax:
    """Three or more classes: one logit per class, as in scikit-learn. Logits and probabilities (`shares`) are
    `[N, P, classes]`."""

    TOLERANCE = 1e-9

    @staticmethod
    def targets(codes: np.ndarray) -> np.ndarray:
        return (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float32)[:, None, :]

    @staticmethod
    def shares(logits: np.ndarray) -> np.ndarray:
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return shares

    @staticmethod
    def bent(weighted: np.ndarray, shares: np.ndarray, change: np.ndarray) -> np.ndarray:
        return weighted * (change - np.einsum("npk,npk->np", shares, change)[..., None])

    @staticmethod
    def losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        most = logits.max(axis=-1, keepdims=True)
        whole = np.log(np.exp(logits - most).sum(axis=-1)) + most[..., 0]
        return whole - (targets * logits).sum(axis=-1)

    probabilities = shares


class LogisticFamily:
    """Several L2-regularised logistic regressions on the same rows, each without one fold.

    The objective is scikit-learn's; intercepts are not regularised. `X` `[N, D]` is float32, `codes` `[N]` are class
    numbers, `numbers` `[N]` fold numbers, `left_out` `[P]` the fold that each problem leaves out. `weights`
    `[D + 1, P, M]` float32 are the solutions, intercepts last; `whole` `[D + 1, 1, M]` is the solution on every row.
    `M` is 1 for two classes, else the number of classes.
    """

    def __init__(self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, left_out: np.ndarray):
        self.X = X
        self.link: type[_Sigmoid] | type[_Softmax] = _Sigmoid if codes.max() == 1 else _Softmax
        self.target = self.link.targets(codes)
        self.numbers = numbers
        self.left_out = left_out
        self.weights = np.zeros((X.shape[1] + 1, len(left_out), self.target.shape[2]), dtype=np.float32)
        self.whole = np.zeros((X.shape[1] + 1, 1, self.target.shape[2]), dtype=np.float32)
        self.penalty = np.ones((X.shape[1] + 1, 1, 1), dtype=np.float32)
        self.penalty[-1] = 0
        self._inverse: np.ndarray | None = None

    def solve(self, strength: float) -> None:
        """Solve every problem for C = `strength`, starting from its current weights."""
        if self._inverse is None:
            self._inverse = self._inverse_hessian(strength)
        before = self.whole
        self.whole = self._newton(strength, before, np.array([EVERYTHING]), self._inverse)
        self.weights += self.whole - before
        self._inverse = self._inverse_hessian(strength)
        at_once = max(1, TOGETHER // self.target.size)
        for start in range(0, len(self.left_out), at_once):
            some = slice(start, start + at_once)
            self.weights[:, some] = self._newton(strength, self.weights[:, some], self.left_out[some], self._inverse)

    def probabilities(self, problem: int, rows: np.ndarray) -> np.ndarray:
        """Class probabilities of some rows under one problem's solution, `[len(rows), classes]` float64."""
        logits = self.X[rows] @ self.weights[:-1, problem] + self.weights[-1, problem]
        return self.link.probabilities(logits.astype(np.float64))

    def _inverse_hessian(self, strength: float) -> np.ndarray:
        """The inverse Hessian `[D + 1, D + 1]` float64 of the full fit at its weights. With more than two classes, one
        matrix serves all of them: that of their mean curvature."""
        share = self.link.shares(self._forward(self.whole))
        root = np.sqrt((strength * share * (1 - share)).mean(axis=2))
        hessian = np.zeros((len(self.whole), len(self.whole)))
        room = np.empty((min(ROWS_AT_ONCE, len(root)), len(self.whole)), dtype=np.float32)
        for start in range(0, len(root), ROWS_AT_ONCE):  # summed in float64, multiplied in float32
            part = root[start : start + ROWS_AT_ONCE]
            scaled = room[: len(part)]
            np.multiply(self.X[start : start + ROWS_AT_ONCE], part, out=scaled[:, :-1])
            scaled[:, -1] = part[:, 0]
            hessian += scaled.T @ scaled
        hessian += np.diag(self.penalty[:, 0, 0] + ROUNDING * np.trace(hessian) / len(hessian))
        return np.linalg.inv(hessian)

    def _newton(self, strength: float, start: np.ndarray, left_out: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """Newton's method on a few problems at once, from `start` `[D + 1, P, M]` -> their solutions.

        Problems that have converged drop out of the computation.
        """
        solution, moving = start.copy(), np.arange(len(left_out))
        logits = self._forward(start)
        taking_part = strength * (self.numbers[:, None] != left_out).astype(np.float32)[..., None]
        objective = self._objective(start, logits, taking_part)
        for _ in range(NEWTON_STEPS):
            weights = solution[:, moving]
            share = self.link.shares(logits)
            gradient = self._backward(taking_part * (share - self.target)) + self.penalty * weights
            step, change = self._direction(gradient, taking_part, share, inverse)
            gain = -_dot(step, gradient) / 2
            length, objective = self._length(objective, weights, logits, step, change, taking_part)
            solution[:, moving] = weights + length * step
            far = gain > self.link.TOLERANCE * taking_part.sum(axis=(0, 2))
            if not far.any():
                break
            logits = (logits + length * change)[:, far]
            moving, taking_part, objective = moving[far], taking_part[:, far], objective[far]
        return solution

    def _direction(
        self, gradient: np.ndarray, taking_part: np.ndarray, share: np.ndarray, inverse: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The Newton step `[D + 1, P, M]` and the resulting change of the logits `[N, P, M]`."""
        step, change, weighted = np.zeros_like(gradient), np.zeros_like(share), taking_part * share
        residual, towards = -gradient, _times(inverse, -gradient)
        conjugate, size = towards, _dot(residual, towards)
        enough, alive = REDUCTION * size, np.ones(len(size), dtype=bool)
        for _ in range(CONJUGATE_STEPS):
            forward = self._forward(conjugate)
            bent = self._backward(self.link.bent(weighted, share, forward)) + self.penalty * conjugate
            curvature = _dot(conjugate, bent)
            alive &= curvature > NOISE * _dot(np.abs(conjugate), np.abs(bent))  # a solved problem waits for the others
            length = np.where(alive, size / np.where(alive, curvature, 1), 0)[:, None]
            step += length * conjugate
            change += length * forward
            residual = residual - length * bent
            towards = _times(inverse, residual)
            before, size = size, _dot(residual, towards)
            if not (alive & (size > enough)).any():
                break
            conjugate = towards + (size / np.maximum(before, 1e-30))[:, None] * conjugate
        return step, change

    def _length(
        self,
        before: np.ndarray,
        weights: np.ndarray,
        logits: np.ndarray,
        step: np.ndarray,
        change: np.ndarray,
        taking_part: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each problem's step length `[P, 1]`, halved until its objective falls from `before` (backtracking), and that
        objective `[P]`."""
        length = np.ones((weights.shape[1], 1), dtype=np.float32)
        for _ in range(20):
            ahead = self._objective(weights + length * step, logits + length * change, taking_part)
            worse = ~(ahead <= before)
            if not worse.any():
                break
            length[worse] /= 2
        return length, ahead

    def _objective(self, weights: np.ndarray, logits: np.ndarray, taking_part: np.ndarray) -> np.ndarray:
        data = (taking_part[..., 0] * self.link.losses(logits, self.target)).sum(axis=0, dtype=np.float64)
        return data + (weights[:-1].astype(np.float64) ** 2).sum(axis=(0, 2)) / 2

    def _forward(self, weights: np.ndarray) -> np.ndarray:
        return _times(self.X, weights[:-1]) + weights[-1]

    def _backward(self, slopes: np.ndarray) -> np.ndarray:
        flat = slopes.reshape(len(slopes), -1)
        products = (flat.T @ self.X).T  # a quarter faster than self.X.T @ flat
        return np.concatenate([products, flat.sum(axis=0, keepdims=True)]).reshape(-1, *slopes.shape[1:])


def _times(matrix: np.ndarray, several: np.ndarray) -> np.ndarray:
    """`[A, B]` times `[B, P, M]` -> `[A, P, M]` float32, as one product."""
    return (matrix @ several.reshape(len(several), -1)).astype(np.float32, copy=False).reshape(-1, *several.shape[1:])


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two `[D + 1, P, M]` -> their inner product for each problem `[P]`."""
    return (one * other).sum(axis=(0, 2))
