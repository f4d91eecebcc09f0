"""Zero-shot classification: the class with the nearest prompts (Radford et al. 2021, section 3.1)."""

from collections.abc import Mapping

import numpy as np

from toolkit.encoders.record import Sees
from toolkit.heads.base import softmax, unit
from toolkit.heads.classifier import Classifier


class ZeroShot(Classifier):
    """Softmax over the cosines to each class's prompts.

    `prompts` maps each class to its prompts' vectors `[P, D]`, which are normalised, averaged and normalised again
    (Radford et al. 2021, section 3.1.4). Nothing is learned; `fit` only reads the classes. `margin`, for two classes
    only, is the cosine to the second class minus that to the first at which both are equally likely.
    """

    reads = frozenset({Sees.LAST_LAYER})
    needs_prompts = True
    learns = False
    parameters_ = 0

    def __init__(self, prompts: Mapping[str, np.ndarray] | None = None, temperature: float = 0.07, margin: float = 0.0):
        self.prompts = prompts
        self.temperature = temperature
        self.margin = margin

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "ZeroShot":
        """Take the classes from `prompts`.

        Raises ValueError if `y` contains a class without prompts, or for a margin with more than two classes.
        """
        prompts = self.prompts or {}
        self.classes_ = np.array(sorted(prompts))
        without = set(np.unique(y)) - set(prompts)
        if without:
            raise ValueError(f"no prompts for the classes {sorted(map(str, without))}")
        if self.margin and len(prompts) != 2:
            raise ValueError(f"a margin needs exactly two classes, not {len(prompts)}")
        means = np.stack([unit(prompts[label]).mean(axis=0) for label in self.classes_])
        self.weights_ = unit(means)
        self.choice_: dict[str, object] = {}
        return self

    def with_prompts(self, prompts: Mapping[str, np.ndarray]) -> "ZeroShot":
        """The same head, with its `choice_`, for the classes of these prompts; without the margin of the old ones."""
        y = np.array(list(prompts))
        renewed = ZeroShot(prompts, self.temperature).fit(np.empty((len(y), self.weights_.shape[1])), y)
        renewed.choice_ = self.choice_
        return renewed

    def cosines(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64: the cosine to each class's prompts."""
        return np.asarray(unit(X) @ self.weights_.T, dtype=np.float64)

    def logits(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64: the input of the softmax."""
        logits = self.cosines(X) / self.temperature
        if self.margin:
            logits[:, 1] -= self.margin / self.temperature
        return logits

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        return softmax(self.logits(X))
