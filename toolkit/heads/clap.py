"""CLAP, the class-adaptive linear probe: it starts from the prompts and is held to them, with nothing to choose.

Silva-Rodriguez et al. 2024, "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", section 4. The
paper takes stochastic steps (300 epochs of augmented images); here the objective is the same, on the vectors as they
are, and L-BFGS goes to its optimum: the same rows give the same probe.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.record import Sees
from toolkit.heads.base import softmax, unit
from toolkit.heads.zero_shot import ZeroShot

STEPS = 1000


class ClassAdaptiveProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Softmax over the cosines to one prototype a class, divided by `temperature`.

    The prototypes minimise the mean log loss on the training rows and the mean over the classes of a weight times the
    squared distance from the class's prompts (unit length). The weight is the mean probability that the prompts alone
    give the class's own training images: prompts that are right are kept. `choice_` has these weights.
    """

    reads = frozenset({Sees.LAST_LAYER})
    needs_prompts = True
    learns = True

    def __init__(self, prompts: Mapping[str, np.ndarray] | None = None, temperature: float = 0.07):
        self.prompts = prompts
        self.temperature = temperature

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "ClassAdaptiveProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` change nothing. Raises ValueError for a class without prompts."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        prompts = ZeroShot(self.prompts, self.temperature).fit(X, y)
        self.classes_ = prompts.classes_
        codes = np.searchsorted(self.classes_, y)
        odds, belongs = prompts.predict_proba(X), codes[:, None] == np.arange(len(self.classes_))
        held = (odds * belongs).sum(axis=0) / np.maximum(1, belongs.sum(axis=0))
        self.prototypes_ = self._prototypes(unit(X), belongs, held, prompts.weights_)
        weights = {str(label): round(float(weight), 4) for label, weight in zip(self.classes_, held, strict=True)}
        self.choice_: dict[str, Any] = {"held_to_prompts": weights}
        return self

    def _prototypes(self, X: np.ndarray, belongs: np.ndarray, held: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The optimum `[classes, D]` of unit length, from the prompts `start`."""
        from scipy.optimize import minimize

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            prototypes = flat.reshape(start.shape)
            lengths = np.linalg.norm(prototypes, axis=1, keepdims=True)
            directions = prototypes / lengths
            shares = softmax((X @ directions.T.astype(np.float32)).astype(np.float64) / self.temperature)
            away = prototypes - start
            loss = -np.log(np.clip(shares[belongs], 1e-300, None)).mean() + (held * (away**2).sum(axis=1)).mean()
            wrong = ((shares - belongs) / (len(X) * self.temperature)).astype(np.float32)
            slopes = (wrong.T @ X).astype(np.float64)
            slopes -= (slopes * directions).sum(axis=1, keepdims=True) * directions  # length changes no cosine
            return float(loss), (slopes / lengths + 2 / len(start) * held[:, None] * away).ravel()

        found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
        return unit(found.x.reshape(start.shape))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return softmax((unit(X) @ self.prototypes_.T).astype(np.float64) / self.temperature)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likeliest class of each row; of equally likely ones, the first."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
