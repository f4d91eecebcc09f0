"""What a label betrays without anybody looking at the picture: a decision tree on the facts of the image files.

Grommelt et al. 2024 ("Fake or JPEG?") found that detectors learn from the file's compression and size wherever real and
generated images differ in them.
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.record import Sees
from toolkit.heads.base import fold_numbers, log_loss, usable_folds

DEPTHS = (0, 1, 2, 3, 4, 6, 8)
SMALLEST_LEAF = 5
MOST_ROWS = 20_000
"""So many rows decide the depth; the tree itself is fitted on all."""


class Shortcut(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A decision tree on `toolkit.encoders.features.FACTS`.

    Its depth is the one with the least mean log loss over the held-out folds; depth 0 looks at nothing, and is what
    clean data ends with. Shares in the leaves are smoothed as if one more image were split evenly among the classes.
    """

    reads = frozenset({Sees.FILE_FACTS})
    needs_prompts = False
    learns = True

    def __init__(self, choose_by: str = "category", depths: tuple[int, ...] = DEPTHS, seed: int = 0):
        self.choose_by = choose_by
        self.depths = depths
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "Shortcut":
        """Fit on `X` `[N, facts]` and `y` `[N]`; `groups` `[N]` are the categories to leave out when choosing."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        y = np.asarray(y)
        numbers, how = fold_numbers(y, groups, self.choose_by, self.seed)
        self.classes_, codes = np.unique(y, return_inverse=True)
        some = np.sort(np.random.default_rng(self.seed).permutation(len(X))[:MOST_ROWS])
        losses = [self._loss(X[some], codes[some], numbers[some], depth) for depth in self.depths]
        best = int(np.argmin(losses))
        self.model_ = self._tree(self.depths[best]).fit(X, codes)
        self.choice_: dict[str, Any] = {"depth": self.depths[best], "log_loss": round(losses[best], 4), "by": how}
        return self

    def _tree(self, depth: int) -> DecisionTreeClassifier:
        stump = {"max_depth": depth} if depth else {"min_impurity_decrease": 1.0}  # no split can gain that much
        return DecisionTreeClassifier(min_samples_leaf=SMALLEST_LEAF, random_state=self.seed, **stump)

    def _loss(self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, depth: int) -> float:
        usable = usable_folds(codes, numbers)
        losses = [
            log_loss(_shares(self._tree(depth).fit(X[fit], codes[fit]), X[out]), codes[out]) for fit, out in usable
        ]
        return float(np.mean(losses)) if losses else 0.0

    @property
    def importances_(self) -> np.ndarray:
        """How much each fact helped `[facts]`: its share of what all splits gained; zeros where nothing helped."""
        check_is_fitted(self)
        return np.asarray(self.model_.feature_importances_)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, facts]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        return _shares(self.model_, validate_data(self, X, dtype=np.float32, reset=False))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likelier class of each row; of two equally likely ones, the first."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _shares(tree: DecisionTreeClassifier, X: np.ndarray) -> np.ndarray:
    counts = tree.tree_.n_node_samples[tree.apply(X)][:, None]
    shares = np.asarray(tree.predict_proba(X))
    return (counts * shares + 1 / shares.shape[1]) / (counts + 1)
