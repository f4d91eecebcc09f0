"""One linear probe for each block of an image tower (Alain & Bengio 2017), combined into one linear probe.

The probes are combined by stacked generalisation (Wolpert 1992): the weights of their sum are learned from the probes'
scores on held-out categories, and are not negative (Breiman 1996). A weighted sum of linear probes is a linear probe,
so only that one is stored.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from toolkit.heads.base import (
    BY_DEFAULT,
    VECTORS,
    LeftOut,
    Tried,
    at_edge,
    fold_numbers,
    log_loss,
    softmax,
    unit,
    usable_folds,
    with_rare_classes,
)
from toolkit.heads.classifier import Classifier

GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
DEFAULT = 1.0
"""C if cross-validation is impossible."""
PATIENCE = 2
PULL = 0.1
"""Penalty that pulls the blocks' weights towards equal weights. Chosen on training categories, each held out in turn:
values from 0.03 to 0.3 do equally well; 0.001 has a higher log loss on CLIP ViT-B/16, 3 on nano."""
MOST_ROWS = 4_000
"""At most this many rows choose C and the weights; the final probes are fitted on all rows."""

log = logging.getLogger(__name__)

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Choice:
    """A block's `C`, its mean log loss over the folds, and its logits on the held-out rows `[H, classes]`."""

    C: float
    log_loss: float
    logits: np.ndarray


class LayerProbes(Classifier):
    """L2-regularised logistic regression on each block, summed with weights learned on held-out categories.

    `blocks` are the numbers of columns of the blocks; empty means one block. Each block is scaled to unit length,
    standardised, and divided by the square root of its width, so that C means the same for every width. Each block has
    the `C` of `grid` with the lowest mean log loss over the held-out folds. The weights of the blocks and an intercept
    then minimise the log loss on those folds plus the penalty `PULL`. The log loss in `choice_` is nested: each fold is
    scored with weights learned without it.
    """

    reads = VECTORS
    needs_prompts = False
    learns = True

    def __init__(
        self,
        blocks: tuple[int, ...] = (),
        choose_by: str = "category",
        grid: tuple[float, ...] = GRID,
        seed: int = 0,
    ):
        self.blocks = blocks
        self.choose_by = choose_by
        self.grid = grid
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "LayerProbes":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the categories, the folds that choose.

        Raises ValueError if `blocks` do not add up to D.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        numbers, how = fold_numbers(codes, groups, self.choose_by, self.seed)
        rows = with_rare_classes(np.random.default_rng(self.seed).permutation(len(X))[:MOST_ROWS], codes)
        folds = usable_folds(codes[rows], numbers[rows])
        with threadpool_limits(1, user_api="blas"):  # a block's products are too small for two threads to pay
            choices = [_choose(block[rows], codes[rows], folds, self.grid) for block in self._split(X)]
            self._combine(choices, codes, [rows[out] for _, out in folds])
            self._fit_all(self._split(X), codes, choices)
        self.choice_ = {
            "C": [choice.C for choice in choices],
            "weights": [round(float(weight), 3) for weight in self.weights_],
            "log_loss": self.log_loss_,
            "by": how if folds else BY_DEFAULT,
            **({"chosen_on": len(rows)} if len(rows) < len(X) else {}),
            **at_edge(*self._telling(choices)),
        }
        log.info("layer probes on %d x %d: %s", *X.shape, self.choice_)
        return self

    def _split(self, X: np.ndarray) -> list[np.ndarray]:
        """The columns of each block, scaled to unit length."""
        widths = self.blocks or (X.shape[1],)
        if sum(widths) != X.shape[1]:
            raise ValueError(f"blocks of {widths} columns do not make {X.shape[1]} columns")
        return [unit(block) for block in np.split(X, np.cumsum(widths)[:-1], axis=1)]

    def _combine(self, choices: Sequence[_Choice], codes: np.ndarray, outs: Sequence[np.ndarray]) -> None:
        """Learn weights `[blocks]` and intercepts `[classes]` from the probes' logits on each fold's held-out rows
        `outs`. Sets `left_out_`."""
        logits = np.stack([choice.logits for choice in choices])
        fold = np.repeat(np.arange(len(outs)), [len(out) for out in outs])
        truth = codes[np.concatenate([*outs, np.array([], dtype=np.int64)])]
        self.weights_, self.bias_ = _stack(logits, truth)
        shares = []
        for inside in [fold == number for number in range(len(outs))]:
            weights, bias = _stack(logits[:, ~inside], truth[~inside])
            shares.append(softmax(_added(logits[:, inside], weights, bias)))
        self.left_out_ = LeftOut.of(outs, shares)
        self.log_loss_ = round(self.left_out_.log_loss(codes), 4) if self.left_out_ else None

    def _fit_all(self, blocks: Sequence[np.ndarray], codes: np.ndarray, choices: Sequence[_Choice]) -> None:
        """Merge the weighted probes into one linear model: `coef_` `[classes, D]`, `intercept_` `[classes]`."""
        parts, intercept = [], self.bias_.copy()
        for block, choice, weight in zip(blocks, choices, self.weights_, strict=True):
            mean, scale = _statistics(block)
            model = LogisticRegression(C=choice.C, max_iter=5000, tol=1e-6).fit((block - mean) / scale, codes)
            slopes, constant = _of_every_class(model)
            parts.append(weight * slopes / scale)
            intercept += weight * (constant - slopes @ (mean / scale))
        self.coef_, self.intercept_ = np.concatenate(parts, axis=1), intercept

    def _telling(self, choices: Sequence[_Choice]) -> list[Tried]:
        """`C` of each block with a noticeable weight."""
        return [
            Tried(f"block {number}: C", choice.C, self.grid)
            for number, (choice, weight) in enumerate(zip(choices, self.weights_, strict=True), start=1)
            if weight > 0.5 / len(choices)
        ]

    @property
    def parameters_(self) -> int:
        """How many numbers were trained."""
        return int(self.coef_.size + self.intercept_.size)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return softmax(np.concatenate(self._split(X), axis=1) @ self.coef_.T + self.intercept_)


def _choose(block: np.ndarray, codes: np.ndarray, folds: Folds, grid: Sequence[float]) -> _Choice:
    """The best `C` for a block `[N, D]`; the search stops when the log loss has risen `PATIENCE` times in a row."""
    models = [LogisticRegression(max_iter=1000, tol=1e-5, warm_start=True) for _ in folds]
    sides = [_standardised(block[fit], block[out]) for fit, out in folds]
    if not folds:
        return _Choice(min(grid, key=lambda C: abs(np.log(C / DEFAULT))), 0.0, np.empty((0, codes.max() + 1)))
    tried: list[_Choice] = []
    for strength in grid:
        logits, losses = [np.empty((0, codes.max() + 1))], []
        for model, (fit, out), (fitting, held_out) in zip(models, folds, sides, strict=True):
            slopes, constant = _of_every_class(model.set_params(C=strength).fit(fitting, codes[fit]))
            logits.append(held_out @ slopes.T + constant)
            losses.append(log_loss(softmax(logits[-1]), codes[out]))
        tried.append(_Choice(strength, float(np.mean(losses)), np.concatenate(logits)))
        recent = [one.log_loss for one in tried[-PATIENCE - 1 :]]
        if len(recent) > PATIENCE and (np.diff(recent) > 0).all():
            break
    return min(tried, key=lambda one: one.log_loss)


def _statistics(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale `[D]`. The scale is the standard deviation (1 if that is zero) times the square root of D."""
    deviation = block.std(axis=0)
    return block.mean(axis=0), np.where(deviation > 0, deviation, 1) * np.float32(np.sqrt(block.shape[1]))


def _standardised(fitting: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardise both with the statistics of the first."""
    mean, scale = _statistics(fitting)
    return (fitting - mean) / scale, (held_out - mean) / scale


def _of_every_class(model: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients `[classes, D]` and intercepts `[classes]` float64; with two classes, the first has zeros."""
    slopes, constant = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(slopes) > 1:
        return slopes, constant
    return np.concatenate([np.zeros_like(slopes), slopes]), np.append(0.0, constant)


def _stack(logits: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[B, N, classes]` and class numbers `codes` `[N]` -> weights `[B]` and intercepts `[classes]`.

    They minimise the mean log loss of the weighted sum plus `PULL / 2` times the squared distance of the weights from
    `1 / B`. Weights are not negative, and the first class's intercept is zero.
    """
    from scipy.optimize import minimize

    blocks, rows, classes = logits.shape
    equal = np.full(blocks, 1 / blocks)
    if not rows:
        return equal, np.zeros(classes)
    truth = np.eye(classes)[codes]

    def objective(both: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = both[:blocks], np.append(0.0, both[blocks:])
        shares = softmax(_added(logits, weights, bias))
        wrong = (shares - truth) / rows
        away = weights - equal
        slopes = np.einsum("bnk,nk->b", logits, wrong) + PULL * away
        return log_loss(shares, codes) + PULL / 2 * float(away @ away), np.append(slopes, wrong.sum(axis=0)[1:])

    bounds = [(0, None)] * blocks + [(None, None)] * (classes - 1)
    found = minimize(objective, np.append(equal, np.zeros(classes - 1)), jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[:blocks], np.append(0.0, found.x[blocks:])


def _added(logits: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The weighted sum of logits `[B, N, classes]` -> `[N, classes]`."""
    return np.tensordot(weights, logits, axes=1) + bias
