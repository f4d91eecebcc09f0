"""What every head inherits."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier in scikit-learn's manner, whose subclasses have `fit` and `predict_proba`."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most likely class of each row; in a tie, the first."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
