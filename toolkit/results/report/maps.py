"""A two-dimensional map of the test images' embeddings. They come from the cache; no model is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.errors import CacheError
from toolkit.results.report import charts
from toolkit.results.report.pictures import OF_LABELS, Picture, colour, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 400
SEED = 0
STEPS = 500
MOST_CATEGORIES = 10


def few(predictions: pl.DataFrame, coloured: Sequence[str] = ()) -> pl.DataFrame:
    """At most `MOST_IMAGES` distinct images (path, sha256, label, category, test): the first ones of each test set and
    label, base and novel alike. Where only some labels are `coloured`, they have half of the images."""
    names = ["path", "sha256", "label", "category", "test"]
    images = predictions.select(names).unique("sha256", keep="first", maintain_order=True)
    is_coloured = pl.col("label").is_in(list(coloured))
    if not coloured or images.filter(~is_coloured).is_empty():
        return _of_each(images, MOST_IMAGES)
    return pl.concat([_of_each(images.filter(one), MOST_IMAGES // 2) for one in (is_coloured, ~is_coloured)])


def _of_each(images: pl.DataFrame, most: int) -> pl.DataFrame:
    """Of each test set and label equally many; where there are more of these than `most`, evenly spaced ones of all."""
    groups = [group for _, group in images.group_by("test", "label", maintain_order=True)]
    if len(groups) > most:
        return _spread(images, most)
    return pl.concat([_spread(group, most // len(groups)) for group in groups]) if groups else images


def _spread(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` rows, evenly spaced, so that no category is missing where the data is sorted by it."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def flatten(cache: Path, identity: str, images: pl.DataFrame) -> pl.DataFrame | None:
    """`images` with their places `x` and `y`; None where the cache lacks the encoder or some of the vectors.

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
    """The first two principal components `[N, 2]` float32, scaled down to start t-SNE from (Kobak & Berens 2019)."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    places = centred @ axes.T
    return np.ascontiguousarray(places / max(float(places[:, 0].std()), 1e-12) * 1e-4, dtype=np.float32)


def embedding_map(points: pl.DataFrame, labels: Sequence[str], held_out: str, name: str, title: str) -> Picture:
    """Of two labels: `points` has x, y, label, category. Colours are labels, shapes categories; the held-out one is
    dark-edged."""
    figure, axes = charts.new(4.9)
    categories = points["category"].fill_null("").value_counts(sort=True)["category"].to_list()
    shown = sorted(categories[:MOST_CATEGORIES], key=lambda one: (one == held_out, one))
    shapes = charts.markers(sorted(shown, key=lambda one: one != held_out))
    for category in shown:
        for label, shade in zip(labels, ("first", "second"), strict=True):
            rows = points.filter((pl.col("category").fill_null("") == category) & (pl.col("label") == label))
            novel = category == held_out
            edge = {"edgecolor": colour("ink"), "linewidth": 0.5} if novel else {"linewidth": 0}
            look = {"marker": shapes[category], "s": 30 if novel else 20, "alpha": 0.9 if novel else 0.55}
            axes.scatter(rows["x"], rows["y"], color=colour(shade), zorder=3 if novel else 2, **look, **edge)
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(True)
    lines = _map_legend(figure, labels, shapes, held_out)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.93, bottom=(0.2 + charts.LINE * lines) / figure.get_figheight())
    return picture(figure, name, f"Two-dimensional map of the test images' embeddings, {title}")


def _map_legend(figure: "Figure", labels: Sequence[str], shapes: Mapping[str, str], held_out: str) -> int:
    """A legend of colours (labels) and shapes (categories). Returns the number of its rows."""
    from matplotlib.lines import Line2D

    plain: dict[str, Any] = {"linestyle": "none", "markersize": 6.5}
    handles = [
        Line2D([], [], marker="o", color=colour(shade), label=charts.short(label), **plain)
        for label, shade in zip(labels, ("first", "second"), strict=True)
    ]
    for category, marker in shapes.items():
        if category:
            edge: dict[str, Any] = {"markeredgecolor": colour("ink")} if category == held_out else {}
            text = f"{charts.short(category)} (novel)" if category == held_out else charts.short(category)
            handles.append(Line2D([], [], marker=marker, color=colour("muted"), label=text, **plain, **edge))
    figure.legend(handles=handles, loc="lower center", ncols=4, handletextpad=0.0, columnspacing=1.0, fontsize=9)
    return -(-len(handles) // 4)


def map_of_many(points: pl.DataFrame, coloured: Sequence[str], name: str, title: str) -> Picture:
    """Of more than two labels: `points` has x, y, label, test. Each of the `coloured` labels (at most as many as
    `pictures.OF_LABELS`) has a colour and a marker, the others are small and grey; novel images are dark-edged."""
    from matplotlib.lines import Line2D

    figure, axes = charts.new(4.9)
    looks: dict[str, dict[str, Any]] = {
        label: {"color": colour(shade), "marker": marker}
        for (label, marker), shade in zip(charts.markers(coloured).items(), OF_LABELS, strict=False)
    }
    others = points.filter(~pl.col("label").is_in(list(coloured)))
    axes.scatter(others["x"], others["y"], color=colour("faint"), s=9, linewidth=0, zorder=1)
    for label, look in looks.items():
        for novel in (False, True):
            rows = points.filter((pl.col("label") == label) & ((pl.col("test") == "novel") == novel))
            edge = {"edgecolor": colour("ink"), "linewidth": 0.5} if novel else {"linewidth": 0}
            axes.scatter(rows["x"], rows["y"], s=22, alpha=0.75, zorder=2, **look, **edge)
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(True)
    plain: dict[str, Any] = {"linestyle": "none", "markersize": 6.5}
    handles = [Line2D([], [], label=charts.short(label), **look, **plain) for label, look in looks.items()]
    if len(others):
        grey: dict[str, Any] = {"marker": "o", "color": colour("faint"), "linestyle": "none", "markersize": 4}
        handles.append(Line2D([], [], label="other labels", **grey))
    columns = 4 if max(len(label) for label in coloured) <= 10 else 3
    figure.legend(handles=handles, loc="lower center", ncols=columns, handletextpad=0.0, columnspacing=1.0, fontsize=9)
    bottom = (0.2 + charts.LINE * -(-len(handles) // columns)) / figure.get_figheight()
    figure.subplots_adjust(left=0.02, right=0.98, top=0.93, bottom=bottom)
    return picture(figure, name, f"Two-dimensional map of the test images' embeddings, {title}")
