"""A small convolutional network on the pixels: the one that CIFAKE was published with (Bird & Lotfi 2023).

Two convolution layers of 32 filters (3x3, ReLU), each followed by max-pooling, a dense layer of 64 (ReLU), one sigmoid
output; binary cross-entropy, Adam. It is trained on the very rows that the other heads are fitted on.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.features import SIDE
from toolkit.encoders.record import Sees
from toolkit.heads.base import fold_numbers, log_loss, usable_folds

if TYPE_CHECKING:
    from torch import Tensor

FILTERS, KERNEL, DENSE = 32, 3, 64
LEARNING_RATE = 1e-3
BATCH = 32
GROUPS = 3
PATIENCE = 4
ROWS_AT_ONCE = 1024

Weights = dict[str, np.ndarray]


class SmallCNN(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Bird & Lotfi's network. `X` are pixels `[N, 3 x 32 x 32]` from 0 to 255 (`toolkit.encoders.features.Pixels`).

    The paper does not say when to stop in terms that carry over to other numbers of images, so the number of epochs is
    chosen like everything else, inside the training rows: three networks, each without a third of the categories
    (or of the random folds), are trained side by side until their mean log loss on the left-out rows has not fallen for
    `PATIENCE` epochs; then one is trained on all rows for the best number. Weights are kept as numpy arrays.
    """

    reads = frozenset({Sees.PIXELS})
    needs_prompts = False
    learns = True

    def __init__(self, choose_by: str = "category", most_epochs: int = 30, seed: int = 0):
        self.choose_by = choose_by
        self.most_epochs = most_epochs
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "SmallCNN":
        """Train on `X` and `y` `[N]` of two labels; `groups` `[N]` are the categories to leave out when choosing."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(f"the network tells two classes apart, not {len(self.classes_)}")
        numbers, how = fold_numbers(np.asarray(y), groups, self.choose_by, self.seed)
        epochs, loss = self._choose(X, codes, numbers % GROUPS)
        training = _train(X, codes, self.seed)
        self.weights_ = [next(training) for _ in range(epochs)][-1]
        self.choice_: dict[str, Any] = {"epochs": epochs, "log_loss": loss, "by": how}
        return self

    def _choose(self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray) -> tuple[int, float | None]:
        """The number of epochs with the least mean log loss on the left-out rows, and that loss."""
        usable = usable_folds(codes, numbers)
        runs = [_train(X[fit], codes[fit], self.seed) for fit, _ in usable]
        losses: list[float] = []
        while runs and len(losses) < self.most_epochs and len(losses) - int(np.argmin([*losses, np.inf])) <= PATIENCE:
            odds = [_odds(next(run), X[out]) for run, (_, out) in zip(runs, usable, strict=True)]
            losses.append(float(np.mean([log_loss(p, codes[out]) for p, (_, out) in zip(odds, usable, strict=True)])))
        return (int(np.argmin(losses)) + 1, round(min(losses), 4)) if losses else (self.most_epochs, None)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, 3 x 32 x 32]` -> `[N, 2]` float64."""
        check_is_fitted(self)
        return _odds(self.weights_, validate_data(self, X, dtype=np.float32, reset=False))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likelier class of each row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def initial_weights(seed: int) -> Weights:
    """Glorot & Bengio's uniform weights (2010, equation 16), biases of zero."""
    rng = np.random.default_rng([seed, 2])
    flat = FILTERS * (SIDE // 4) ** 2
    shapes = {"first": (FILTERS, 3, KERNEL, KERNEL), "second": (FILTERS, FILTERS, KERNEL, KERNEL)}
    shapes |= {"dense": (DENSE, flat), "output": (1, DENSE)}  # type: ignore[dict-item]
    weights: Weights = {}
    for name, shape in shapes.items():
        area = int(np.prod(shape[2:]))
        limit = np.sqrt(6 / (area * (shape[0] + shape[1])))
        weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
        weights[f"{name}_bias"] = np.zeros(shape[0], dtype=np.float32)
    return weights


def _logits(weights: "dict[str, Tensor]", pixels: "Tensor") -> "Tensor":
    """`[B, 3 x 32 x 32]` from 0 to 255 -> `[B]`."""
    import torch
    import torch.nn.functional as functional

    images = pixels.view(-1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last) / 255  # pools twice as fast
    for name in ("first", "second"):
        maps = functional.conv2d(images, weights[name], weights[f"{name}_bias"], padding=KERNEL // 2)
        images = functional.relu(functional.max_pool2d(maps, 2))  # the same as ReLU first, on a quarter of the numbers
    hidden = functional.relu(functional.linear(images.flatten(1), weights["dense"], weights["dense_bias"]))
    return functional.linear(hidden, weights["output"], weights["output_bias"])[:, 0]


def _train(X: np.ndarray, codes: np.ndarray, seed: int) -> Iterator[Weights]:
    """The weights after each epoch, without end. The order of the rows depends on seed and epoch alone."""
    import torch
    import torch.nn.functional as functional

    weights = {name: torch.from_numpy(array).requires_grad_() for name, array in initial_weights(seed).items()}
    optimizer = torch.optim.Adam(weights.values(), lr=LEARNING_RATE)
    rng = np.random.default_rng([seed, 3])
    while True:
        order = rng.permutation(len(X))
        for start in range(0, len(X), BATCH):
            rows = order[start : start + BATCH]
            logits = _logits(weights, torch.from_numpy(X[rows]))
            target = torch.from_numpy(codes[rows].astype(np.float32))
            optimizer.zero_grad(set_to_none=True)
            functional.binary_cross_entropy_with_logits(logits, target).backward()
            optimizer.step()
        yield {name: tensor.detach().numpy().copy() for name, tensor in weights.items()}


def _odds(weights: Weights, X: np.ndarray) -> np.ndarray:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    parts = []
    with torch.inference_mode():
        for start in range(0, len(X), ROWS_AT_ONCE):
            parts.append(torch.sigmoid(_logits(tensors, torch.from_numpy(X[start : start + ROWS_AT_ONCE]))).numpy())
    second = np.concatenate([*parts, np.empty(0, np.float32)]).astype(np.float64)
    return np.stack([1 - second, second], axis=1)
