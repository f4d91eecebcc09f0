"""What gives the label away without a look at the picture (format, size, compression, metadata), and images that bear
several labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from toolkit.cache.embedding import embed_images
from toolkit.cache.store import Cache
from toolkit.data.held_out import NONE
from toolkit.data.manifest import Dataset
from toolkit.data.split import Split
from toolkit.encoders.features import FACTS, FileFacts
from toolkit.encoders.record import Sees
from toolkit.evaluation.intervals import wilson

if TYPE_CHECKING:
    from toolkit.evaluation.grid import Comparison
    from toolkit.heads.shortcut import Shortcut

MOST_NAMED = 3
TELLING = 0.05
"""A fact is named among several where it has at least this share of the tree's importance."""
WORDS = {
    "format": "file format",
    "width": "picture width",
    "height": "picture height",
    "aspect": "picture shape (width ÷ height)",
    "bytes": "file size (bytes)",
    "bytes per pixel": "compression (bytes per pixel)",
}
"""What people read in place of a fact's short name."""


def summary(
    dataset: Dataset, split: Split, cache: Path, on_progress: Callable[[int, int], None] | None = None
) -> str | None:
    """A line on what gives the labels of `split` away, or None where nothing does.

    Reads the headers of those image files whose facts are not in `cache` yet, and fits a tree on the facts of the
    training rows (`heads.shortcut`). Raises MissingEmbeddings where a file cannot be read.
    """
    from toolkit.heads.shortcut import Shortcut

    facts = Cache(cache, FileFacts().record)
    embed_images(dataset, split.rows(), FileFacts, facts, on_progress)
    vectors = facts.read_images(split.train["sha256"].to_list())
    head = Shortcut().fit(vectors, split.train["label"].to_numpy(), split.groups())
    return _line(head, split, facts)


def lines(comparisons: "Sequence[Comparison]", splits: Sequence[Split], cache: Path) -> list[str]:
    """The line of the first comparison whose files give the labels away, or none; of several it says which.

    Only comparisons with a head on file facts can tell; these facts are in the folder `cache`.
    """
    for comparison, split in zip(comparisons, splits, strict=True):
        for head in comparison.heads.values():
            on_facts = Sees.FILE_FACTS in head.reads
            if on_facts and (said := _line(cast("Shortcut", head), split, Cache(cache, FileFacts().record))):
                which = "" if len(splits) == 1 or split.held_out == NONE else f" (Without {split.held_out}.)"
                return [f"{said}{which}"]
    return []


def _line(head: "Shortcut", split: Split, facts: Cache) -> str | None:
    """What a fitted head finds on the base test images, and how many contents bear several labels."""
    vectors, labels = facts.read_images(split.base["sha256"].to_list()), split.base["label"].to_numpy()
    said = _given_away(head, vectors, labels)
    if count := clashes(split.rows()):
        said.append(f"Careful: {count} {'image bears' if count == 1 else 'images bear'} several labels.")
    return " ".join(said) or None


def _given_away(head: "Shortcut", vectors: np.ndarray, labels: np.ndarray) -> list[str]:
    """Sentences on the facts that give the labels away: the whole 95 % interval of their accuracy is above the share
    of the most frequent label."""
    guessing = np.unique(labels, return_counts=True)[1].max() / len(labels)
    together, low = _share(head.predict(vectors) == labels)
    shares = {FACTS[fact]: _share(found == labels) for fact, found in head.predict_alone(vectors).items()}
    alone = [f"{WORDS.get(name, name)} {share}" for name, (share, low_alone) in shares.items() if low_alone > guessing]
    if alone:
        told = f"One fact alone tells this share of the test images right: {', '.join(alone)}; all together {together}"
    elif low > guessing:
        told = f"{', '.join(telling(head))} tell {together} of the test images right"
    else:
        return []
    return ["Careful: the label shows in the files without a look at the picture.", f"{told}, guessing {guessing:.3f}."]


def _share(right: np.ndarray) -> tuple[str, float]:
    """`0.950 [0.83–0.99]`, and the lower end."""
    low, high = wilson(right.sum(), len(right))
    return f"{right.mean():.3f} [{low:.2f}–{high:.2f}]", low


def telling(head: "Shortcut") -> list[str]:
    """The facts that a fitted tree uses, the most important first."""
    shares = head.importances_
    order = np.argsort(-shares, kind="stable")[:MOST_NAMED]
    return [WORDS.get(FACTS[number], FACTS[number]) for number in order if shares[number] >= TELLING]


def clashes(rows: pl.DataFrame) -> int:
    """How many contents (`sha256`) carry more than one `label`."""
    labels = rows.group_by("sha256").agg(pl.col("label").n_unique())
    return int((labels["label"] > 1).sum())
