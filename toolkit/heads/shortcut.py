"""A decision tree on facts about the image files: does anything but the picture predict the label?

Grommelt et al. 2024 ("Fake or JPEG?") found that detectors learn from compression and image size if real and generated
images differ in them.
"""

from typing import Any

import numpy as np
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.record import Sees
from toolkit.heads.base import BY_DEFAULT, LeftOut, Tried, at_edge, fold_numbers, usable_folds, with_rare_classes
from toolkit.heads.classifier import Classifier

DEPTHS = (0, 1, 2, 3, 4, 6, 8)
SMALLEST_LEAF = 5
MOST_ROWS = 20_000
"""At most this many rows choose the depth; the tree itself is fitted on all rows."""
ENOUGH = 0.9
"""A single fact counts as sufficient if it reaches this share of the gain of all facts over guessing."""


class Shortcut(Classifier):
    """A decision tree on `toolkit.encoders.features.FACTS`.

    Its depth is the one with the lowest mean log loss over the held-out folds. Depth 0 uses no fact; it is chosen for
    data without shortcuts. Class shares in the leaves are smoothed with one more image, split evenly among the classes.
    `alone_` holds the same tree on a single fact, for each fact that does nearly as well as all facts in those folds.
    """

    reads = frozenset({Sees.FILE_FACTS})
    needs_prompts = False
    learns = True

    def __init__(self, choose_by: str = "category", depths: tuple[int, ...] = DEPTHS, seed: int = 0):
        self.choose_by = choose_by
        self.depths = depths
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "Shortcut":
        """Fit on `X` `[N, facts]` and `y` `[N]`; `groups` `[N]` are the categories, the folds that choose."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        y = np.asarray(y)
        numbers, how = fold_numbers(y, groups, self.choose_by, self.seed)
        self.classes_, codes = np.unique(y, return_inverse=True)
        some = with_rare_classes(np.random.default_rng(self.seed).permutation(len(X))[:MOST_ROWS], codes)
        tried = [self._left_out(X, codes, numbers, some, depth) for depth in self.depths]
        losses = [left_out.log_loss(codes) if left_out else 0.0 for left_out in tried]
        best = int(np.argmin(losses))
        self.left_out_ = tried[best]
        self.model_ = self._tree(self.depths[best]).fit(X, codes)
        loss = round(losses[best], 4) if self.left_out_ else None
        how = how if self.left_out_ else BY_DEFAULT
        self.choice_: dict[str, Any] = {"depth": self.depths[best], "log_loss": loss, "by": how}
        self.choice_ |= at_edge(Tried("depth", self.depths[best], self.depths, natural=0))
        self._fit_alone(X, codes, some, numbers)
        return self

    def _fit_alone(self, X: np.ndarray, codes: np.ndarray, some: np.ndarray, numbers: np.ndarray) -> None:
        """Fit `alone_`: the same tree on one fact, for each fact that is sufficient in the held-out folds."""
        self.alone_: dict[int, DecisionTreeClassifier] = {}
        depth = int(self.choice_["depth"])
        if not depth:
            return
        rows, of_rows, folds = X[some], codes[some], numbers[some]
        guessing = np.bincount(of_rows).max() / len(of_rows)
        needed = guessing + ENOUGH * (self._accuracy(rows, of_rows, folds, depth) - guessing)
        for fact in np.flatnonzero(np.ptp(rows, axis=0)):
            accuracy = self._accuracy(rows[:, [fact]], of_rows, folds, depth)
            if accuracy > guessing and accuracy >= needed:
                self.alone_[int(fact)] = self._tree(depth).fit(X[:, [fact]], codes)

    def _accuracy(self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, depth: int) -> float:
        """Mean accuracy over the held-out folds."""
        right = [
            float((self._tree(depth).fit(X[fit], codes[fit]).predict(X[out]) == codes[out]).mean())
            for fit, out in usable_folds(codes, numbers)
        ]
        return float(np.mean(right)) if right else 0.0

    def _tree(self, depth: int) -> DecisionTreeClassifier:
        stump = {"max_depth": depth} if depth else {"min_impurity_decrease": 1.0}  # no split can gain that much
        return DecisionTreeClassifier(min_samples_leaf=SMALLEST_LEAF, random_state=self.seed, **stump)

    def _left_out(
        self, X: np.ndarray, codes: np.ndarray, numbers: np.ndarray, some: np.ndarray, depth: int
    ) -> LeftOut | None:
        """What trees of this depth say of the rows `some`, each fitted without a fold of them."""
        folds = [(some[fit], some[out]) for fit, out in usable_folds(codes[some], numbers[some])]
        shares = [_shares(self._tree(depth).fit(X[fit], codes[fit], check_input=False), X[out]) for fit, out in folds]
        return LeftOut.of([out for _, out in folds], shares)

    @property
    def importances_(self) -> np.ndarray:
        """Feature importances `[facts]`: each fact's share of the impurity decrease; all zeros without a split."""
        check_is_fitted(self)
        return np.asarray(self.model_.feature_importances_)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, facts]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        return _shares(self.model_, validate_data(self, X, dtype=np.float32, reset=False))

    def predict_alone(self, X: np.ndarray) -> dict[int, np.ndarray]:
        """`[N, facts]` -> for each fact that is sufficient alone: its number and the classes `[N]` it predicts."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return {fact: np.asarray(self.classes_[tree.predict(X[:, [fact]])]) for fact, tree in self.alone_.items()}


def _shares(tree: DecisionTreeClassifier, X: np.ndarray) -> np.ndarray:
    inner, leaves = tree.tree_, tree.tree_.apply(X)  # tree.apply checks X anew, for ten times as long
    counts, shares = inner.n_node_samples[leaves][:, None], inner.value[leaves, 0]
    return (counts * shares + 1 / shares.shape[1]) / (counts + 1)
