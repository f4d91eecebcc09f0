"""Where the test images lie in an encoder's space, flattened to two dimensions. From the cache; no model is loaded."""

from pathlib import Path

import numpy as np
import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.errors import CacheError

MOST_IMAGES = 400
SEED = 0
STEPS = 500


def few(predictions: pl.DataFrame) -> pl.DataFrame:
    """At most `MOST_IMAGES` distinct images (path, sha256, label, category, test): the first ones of each test set and
    label, novel and base alike."""
    names = ["path", "sha256", "label", "category", "test"]
    images = predictions.select(names).unique("sha256", keep="first", maintain_order=True)
    groups = [group for _, group in images.group_by("test", "label", maintain_order=True)]
    return pl.concat([_spread(group, MOST_IMAGES // len(groups)) for group in groups]) if groups else images


def _spread(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Evenly spaced ones, so that no category is left out where the data is sorted by it."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def flatten(cache: Path, identity: str, images: pl.DataFrame) -> pl.DataFrame | None:
    """`images` with `x` and `y`; None where the cache has no such encoder or not all of its vectors.

    t-SNE (van der Maaten & Hinton 2008) of the unit vectors, started from their principal components, with a fixed
    seed.
    """
    records = find_encoders(cache, lambda record: record.identity == identity)
    if not records or len(images) < 3:
        return None
    try:
        vectors = Cache(cache, records[0]).read_images(images["sha256"].to_list())
    except CacheError:
        return None
    places = _tsne(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
    return images.with_columns(x=pl.Series(places[:, 0]), y=pl.Series(places[:, 1]))


def _tsne(vectors: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    start = _principal(vectors)
    return TSNE(init=start, perplexity=perplexity, random_state=SEED, max_iter=STEPS, n_jobs=1).fit_transform(vectors)


def _principal(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components `[N, 2]` float32, as small as t-SNE wants its start (Kobak & Berens 2019)."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    places = centred @ axes.T
    return np.ascontiguousarray(places / max(float(places[:, 0].std()), 1e-12) * 1e-4, dtype=np.float32)
