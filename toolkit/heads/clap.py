"""CLAP, the class-adaptive linear probe: initialised at the prompts and penalised for leaving them.

Silva-Rodriguez et al. 2024, "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", section 4. It
has no hyperparameters to choose. The paper trains by stochastic gradient descent (300 epochs of augmented images); here
L-BFGS minimises the same objective on the vectors without augmentation, so that equal rows give an equal probe.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.record import Sees
from toolkit.heads.base import LeftOut, fold_numbers, softmax, unit, usable_folds
from toolkit.heads.classifier import Classifier
from toolkit.heads.zero_shot import ZeroShot

STEPS = 1000


class ClassAdaptiveProbe(Classifier):
    """Softmax over the cosines to one prototype per class, divided by `temperature`.

    The prototypes minimise the mean log loss on the training rows plus a penalty: the mean over classes of a weight
    times the squared distance to the class's prompts (unit length). The weight is the mean probability that zero-shot
    gives to the right class on the class's training images, so good prompts are kept. `choice_` has these weights.
    Nothing is chosen by cross-validation; it only says, as `log_loss`, what to expect of a category that is left out.
    """

    reads = frozenset({Sees.LAST_LAYER})
    needs_prompts = True
    learns = True

    def __init__(
        self,
        prompts: Mapping[str, np.ndarray] | None = None,
        temperature: float = 0.07,
        choose_by: str = "category",
        seed: int = 0,
    ):
        self.prompts = prompts
        self.temperature = temperature
        self.choose_by = choose_by
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "ClassAdaptiveProbe":
        """Fit on `X` `[N, D]` and `y` `[N]`; `groups` `[N]` are the folds that its log loss is measured on.

        Raises ValueError for a class without prompts."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        prompts = ZeroShot(self.prompts, self.temperature).fit(X, y)
        self.classes_ = prompts.classes_
        codes = np.searchsorted(self.classes_, y)
        self.prototypes_, held = self._fitted(X, codes, prompts)
        folds = usable_folds(codes, fold_numbers(codes, groups, self.choose_by, self.seed)[0])
        left_out = [self._shares(X[out], self._fitted(X[fit], codes[fit], prompts)[0]) for fit, out in folds]
        self.left_out_ = LeftOut.of([out for _, out in folds], left_out)
        weights = {str(label): round(float(weight), 4) for label, weight in zip(self.classes_, held, strict=True)}
        loss = round(self.left_out_.log_loss(codes), 4) if self.left_out_ else None
        self.choice_: dict[str, Any] = {"held_to_prompts": weights, "log_loss": loss}
        return self

    def _fitted(self, X: np.ndarray, codes: np.ndarray, prompts: ZeroShot) -> tuple[np.ndarray, np.ndarray]:
        """The prototypes `[classes, D]` for these rows, and each class's weight of the penalty `[classes]`."""
        belongs = codes[:, None] == np.arange(len(prompts.classes_))
        held = (prompts.predict_proba(X) * belongs).sum(axis=0) / np.maximum(1, belongs.sum(axis=0))
        return self._prototypes(unit(X), belongs, held, prompts.weights_), held

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
        return self._shares(validate_data(self, X, dtype=np.float32, reset=False), self.prototypes_)

    def _shares(self, X: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        return softmax((unit(X) @ prototypes.T).astype(np.float64) / self.temperature)
