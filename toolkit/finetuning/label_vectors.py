"""One trained vector a label, which an image tower without text is fine-tuned with in place of prompts.

They start from the probe (LP-FT: Kumar et al. 2022, section 3): vectors that start by chance would first drag the
tower's features after them, and distort what it knows of images that training never saw.
"""

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.split import groups_of
from toolkit.encoders.openclip import OpenClip
from toolkit.finetuning.recipes import Recipe
from toolkit.storage import distributed


def add(encoder: OpenClip, base: Cache, train: pl.DataFrame, recipe: Recipe) -> None:
    """Give `encoder`, an image tower alone, its label vectors: those of a probe on the rows of `train` (columns label,
    group, sha256), whose vectors `base` holds. Raises MissingEmbeddings where it does not.

    Under torchrun all processes start from the first one's.
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

    The softmax of an image's cosines to them, divided by the recipe's temperature, is that of a logistic regression
    whose `C` is chosen as the probe chooses it, and which has no intercept, since cosines have none. Where the probe is
    surer than unit vectors can be, the same with all logits shrunk by one factor.
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
    """`[L, D]` made unit vectors by adding one and the same vector to all, which no softmax notices.

    That vector has a part that makes their lengths equal, and a part at a right angle to them all, the nearest to
    `towards` `[D]`, that makes the length 1. Where they are too long for that, all are shrunk by one factor first.
    """
    vectors = vectors - vectors.mean(axis=0)
    squares = (vectors**2).sum(axis=1)
    levelling = np.linalg.lstsq(2 * vectors, squares.mean() - squares, rcond=None)[0]
    square = squares.mean() + levelling @ levelling  # of each of them, with the levelling part
    shrink = 1 / max(1.0, np.sqrt(square))
    aside = towards - vectors.T @ np.linalg.lstsq(vectors.T, towards, rcond=None)[0]
    aside *= np.sqrt(max(0.0, 1 - square * shrink**2)) / max(np.linalg.norm(aside), 1e-12)
    made = (vectors + levelling) * shrink + aside
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))
