"""A small convolutional network on pixels: the one published with CIFAKE (Bird & Lotfi 2023).

Two convolution layers of 32 filters (3x3, ReLU), each followed by max-pooling, a dense layer of 64 (ReLU), one sigmoid
output; binary cross-entropy, Adam. With more than two labels: one output per label, softmax and cross-entropy. It is
trained on the same rows as the other heads.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.features import SIDE
from toolkit.encoders.record import Sees
from toolkit.heads.base import LeftOut, Tried, at_edge, fold_numbers, log_loss, usable_folds
from toolkit.heads.classifier import Classifier

if TYPE_CHECKING:
    from torch import Tensor

FILTERS, KERNEL, DENSE = 32, 3, 64
LEARNING_RATE = 1e-3
BATCH = 32
GROUPS = 3
PATIENCE = 4
ROWS_AT_ONCE = 1024

Weights = dict[str, np.ndarray]


class SmallCNN(Classifier):
    """Bird & Lotfi's network. `X` are pixels `[N, 3 x 32 x 32]` from 0 to 255 (`toolkit.encoders.features.Pixels`).

    The number of epochs is chosen inside the training rows, since the paper's does not suit other numbers of images.
    Three networks, each trained without a third of the categories (or random folds), run until their mean log loss on
    the held-out rows has not fallen for `PATIENCE` epochs. The final network is trained on all rows for the best number
    of epochs. Weights are stored as numpy arrays.
    """

    reads = frozenset({Sees.PIXELS})
    needs_prompts = False
    learns = True

    def __init__(self, choose_by: str = "category", most_epochs: int = 30, seed: int = 0):
        self.choose_by = choose_by
        self.most_epochs = most_epochs
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "SmallCNN":
        """Train on `X` and `y` `[N]`; `groups` `[N]` are the categories, the folds that choose the number of epochs."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("the network needs at least two classes, and there is only one")
        numbers, how = fold_numbers(np.asarray(y), groups, self.choose_by, self.seed)
        epochs, loss = self._choose(X, codes, numbers % GROUPS)
        training = _train(X, codes, self.seed)
        self.weights_ = [next(training) for _ in range(epochs)][-1]
        self.choice_: dict[str, Any] = {"epochs": epochs, "log_loss": loss, "by": how}
        self.choice_ |= at_edge(Tried("epochs", epochs, (1, self.most_epochs), natural=1)) if loss is not None else {}
        return self

    def _choose(self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray) -> tuple[int, float | None]:
        """The number of epochs with the lowest mean log loss on the held-out rows, and that loss. Sets `left_out_`."""
        usable = usable_folds(codes, numbers)
        runs = [_train(X[fit], codes[fit], self.seed) for fit, _ in usable]
        losses: list[float] = []
        self.left_out_: LeftOut | None = None
        while runs and len(losses) < self.most_epochs and len(losses) - int(np.argmin([*losses, np.inf])) <= PATIENCE:
            found = [_probabilities(next(run), X[out]) for run, (_, out) in zip(runs, usable, strict=True)]
            loss = float(np.mean([log_loss(p, codes[out]) for p, (_, out) in zip(found, usable, strict=True)]))
            if loss < min(losses, default=np.inf):
                self.left_out_ = LeftOut.of([out for _, out in usable], found)
            losses.append(loss)
        return (int(np.argmin(losses)) + 1, round(min(losses), 4)) if losses else (self.most_epochs, None)

    @property
    def parameters_(self) -> int:
        """How many numbers were trained."""
        return int(sum(weights.size for weights in self.weights_.values()))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, 3 x 32 x 32]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        return _probabilities(self.weights_, validate_data(self, X, dtype=np.float32, reset=False))


def initial_weights(seed: int, outputs: int = 1) -> Weights:
    """Glorot & Bengio's uniform weights (2010, equation 16), zero biases."""
    rng = np.random.default_rng([seed, 2])
    flat = FILTERS * (SIDE // 4) ** 2
    shapes = {"first": (FILTERS, 3, KERNEL, KERNEL), "second": (FILTERS, FILTERS, KERNEL, KERNEL)}
    shapes |= {"dense": (DENSE, flat), "output": (outputs, DENSE)}  # type: ignore[dict-item]
    weights: Weights = {}
    for name, shape in shapes.items():
        area = int(np.prod(shape[2:]))
        limit = np.sqrt(6 / (area * (shape[0] + shape[1])))
        weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
        weights[f"{name}_bias"] = np.zeros(shape[0], dtype=np.float32)
    return weights


def _logits(weights: "dict[str, Tensor]", pixels: "Tensor") -> "Tensor":
    """`[B, 3 x 32 x 32]` from 0 to 255 -> `[B, outputs]`."""
    import torch
    import torch.nn.functional as functional

    images = (
        pixels.view(-1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last) / 255
    )  # pooling is twice as fast
    for name in ("first", "second"):
        maps = functional.conv2d(images, weights[name], weights[f"{name}_bias"], padding=KERNEL // 2)
        images = functional.relu(
            functional.max_pool2d(maps, 2)
        )  # same result as ReLU first, on a quarter of the values
    hidden = functional.relu(functional.linear(images.flatten(1), weights["dense"], weights["dense_bias"]))
    return functional.linear(hidden, weights["output"], weights["output_bias"])


def _train(X: np.ndarray, codes: np.ndarray, seed: int) -> Iterator[Weights]:
    """Yields the weights after each epoch, forever. The order of the rows depends only on seed and epoch."""
    import torch
    import torch.nn.functional as functional

    outputs = 1 if codes.max() == 1 else int(codes.max()) + 1
    initial = initial_weights(seed, outputs)
    weights = {name: torch.from_numpy(array).requires_grad_() for name, array in initial.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=LEARNING_RATE)
    rng = np.random.default_rng([seed, 3])
    while True:
        order = rng.permutation(len(X))
        for start in range(0, len(X), BATCH):
            rows = order[start : start + BATCH]
            logits = _logits(weights, torch.from_numpy(X[rows]))
            target = torch.from_numpy(codes[rows])
            optimizer.zero_grad(set_to_none=True)
            if outputs == 1:
                loss = functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())
            else:
                loss = functional.cross_entropy(logits, target)
            loss.backward()
            optimizer.step()
        yield {name: tensor.detach().numpy().copy() for name, tensor in weights.items()}


def _probabilities(weights: Weights, X: np.ndarray) -> np.ndarray:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    parts = []
    with torch.inference_mode():
        for start in range(0, len(X), ROWS_AT_ONCE):
            logits = _logits(tensors, torch.from_numpy(X[start : start + ROWS_AT_ONCE]))
            parts.append(logits.sigmoid() if logits.shape[1] == 1 else logits.double().softmax(dim=1))
    found = torch.cat([*parts, torch.empty(0, len(weights["output"]))]).numpy().astype(np.float64)
    return np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found
