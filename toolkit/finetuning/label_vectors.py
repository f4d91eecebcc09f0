"""Trained label vectors, one per label: they replace prompts when an image tower without text is fine-tuned.

They are initialised from the probe (LP-FT: Kumar et al. 2022, section 3). Randomly initialised vectors would first
distort the tower's features, and accuracy on unseen images would suffer.
"""

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.split import groups_of
from toolkit.encoders.openclip import OpenClip
from toolkit.finetuning.recipes import Recipe
from toolkit.storage import distributed


def add(encoder: OpenClip, base: Cache, train: pl.DataFrame, recipe: Recipe) -> None:
    """Add label vectors to `encoder`, an image tower without text: those of a probe on the rows of `train` (columns
    label, group, sha256). Raises MissingEmbeddings if `base` lacks the vectors of these images.

    Under torchrun, all processes use the first one's label vectors.
    """
    import torch

    labels, vectors = np.array([]), np.array([])
    if distributed.rank() == 0:
        X, y = base.read_images(train["sha256"].to_list()), train["label"].to_numpy()
        labels, vectors = from_probe(X, y, groups_of(train), recipe)
    labels, vectors = distributed.everyones((labels, vectors))[0]
    encoder.model.set_labels(labels.tolist(), torch.from_numpy(vectors).to(encoder.device))


def from_probe(
    X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[L]`, sorted, and their unit vectors `[L, D]` float32, from image vectors `X` `[N, D]` and labels `[N]`.

    The softmax of the cosines to them over the recipe's temperature equals the P of a logistic regression without
    intercept, whose `C` is chosen as the probe's. If that needs longer vectors than unit length allows, all logits are
    shrunk by one factor.
    """
    from sklearn.linear_model import LogisticRegression

    from toolkit.heads.base import unit
    from toolkit.heads.logreg import LogisticProbe

    strength = LogisticProbe(seed=recipe.seed).fit(X, y, groups).choice_["C"]
    X = unit(X).astype(np.float64)
    probe = LogisticRegression(C=strength, fit_intercept=False, max_iter=5000).fit(X, y)
    weights = probe.coef_ if len(probe.classes_) > 2 else np.concatenate([-probe.coef_, probe.coef_]) / 2
    vectors = of_unit_length(weights * recipe.temperature, X.mean(axis=0))
    return np.asarray(probe.classes_, dtype=str), vectors.astype(np.float32)


def of_unit_length(vectors: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """`[L, D]` -> unit vectors, by adding the same vector to all, which does not change a softmax over them.

    The added vector has two parts: one makes all lengths equal; the other is orthogonal to all of them, as close to
    `towards` `[D]` as possible, and makes the lengths 1. Vectors that are too long are first shrunk by one factor.
    """
    vectors = vectors - vectors.mean(axis=0)
    squares = (vectors**2).sum(axis=1)
    levelling = np.linalg.lstsq(2 * vectors, squares.mean() - squares, rcond=None)[0]
    square = squares.mean() + levelling @ levelling  # the squared length of each, after the first part
    shrink = 1 / max(1.0, np.sqrt(square))
    aside = towards - vectors.T @ np.linalg.lstsq(vectors.T, towards, rcond=None)[0]
    aside *= np.sqrt(max(0.0, 1 - square * shrink**2)) / max(np.linalg.norm(aside), 1e-12)
    made = (vectors + levelling) * shrink + aside
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))
