"""CLAP, the class-adaptive linear probe: initialised at the prompts and penalised for leaving them.

Silva-Rodriguez et al. 2024, "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", section 4. It
has no hyperparameters to choose. The paper trains by stochastic gradient descent (300 epochs of augmented images); here
L-BFGS minimises the same objective on the vectors without augmentation, so that equal rows give an equal probe.
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
    """Softmax over the cosines to one prototype per class, divided by `temperature`.

    The prototypes minimise the mean log loss on the training rows plus a penalty: the mean over classes of a weight
    times the squared distance to the class's prompts (unit length). The weight is the mean probability that zero-shot
    gives to the right class on the class's training images, so good prompts are kept. `choice_` has these weights.
    """

    reads = frozenset({Sees.LAST_LAYER})
    needs_prompts = True
    learns = True

    def __init__(self, prompts: Mapping[str, np.ndarray] | None = None, temperature: float = 0.07):
        self.prompts = prompts
        self.temperature = temperature

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "ClassAdaptiveProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` are not used. Raises ValueError for a class without prompts."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        prompts = ZeroShot(self.prompts, self.temperature).fit(X, y)
        self.classes_ = prompts.classes_
        codes = np.searchsorted(self.classes_, y)
        zero_shot, belongs = prompts.predict_proba(X), codes[:, None] == np.arange(len(self.classes_))
        held = (zero_shot * belongs).sum(axis=0) / np.maximum(1, belongs.sum(axis=0))
        self.prototypes_ = self._prototypes(unit(X), belongs, held, prompts.weights_)
        weights = {str(label): round(float(weight), 4) for label, weight in zip(self.classes_, held, strict=True)}
        self.choice_: dict[str, Any] = {"held_to_prompts": weights}
        return self

    def _prototypes(self, X: np.ndarray, belongs: np.ndarray, held: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The optimal prototypes `[classes, D]` of unit length, starting from the prompts `start`."""
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
            slopes -= (slopes * directions).sum(axis=1, keepdims=True) * directions  # cosines do not depend on length
            return float(loss), (slopes / lengths + 2 / len(start) * held[:, None] * away).ravel()

        found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
        return unit(found.x.reshape(start.shape))

    @property
    def parameters_(self) -> int:
        """How many numbers were trained."""
        return int(self.prototypes_.size)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return softmax((unit(X) @ self.prototypes_.T).astype(np.float64) / self.temperature)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most likely class of each row; in a tie, the first."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
