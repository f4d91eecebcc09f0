"""What gives the label away without a look at the picture: formats, sizes, compression, metadata; and contents that
carry several labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from toolkit.cache.embedding import embed_images
from toolkit.cache.store import Cache
from toolkit.data.manifest import Dataset
from toolkit.data.split import Split
from toolkit.encoders.features import FACTS, FileFacts
from toolkit.evaluation import columns
from toolkit.evaluation.intervals import wilson

if TYPE_CHECKING:
    from toolkit.evaluation.grid import Comparison

NAME = "shortcut"
MOST_NAMED = 3
TELLING = 0.05


def summary(
    dataset: Dataset, split: Split, cache: Path, on_progress: Callable[[int, int], None] | None = None
) -> str | None:
    """A line on what gives the labels of `split` away, or None where nothing does.

    Reads the headers of those image files whose facts are not in `cache` yet, and trains the head `shortcut` on the
    training rows. It gives something away where the whole 95 % interval of its accuracy on the base test images is
    above the share of the more frequent label. Raises MissingEmbeddings where a file cannot be read.
    """
    from toolkit.heads.shortcut import Shortcut

    facts = Cache(cache, FileFacts().record)
    embed_images(dataset, split.rows(), FileFacts, facts, on_progress)
    train, base = split.train, split.base
    vectors = facts.read_images(train["sha256"].to_list())
    head = Shortcut().fit(vectors, train["label"].to_numpy(), split.groups())
    labels = base["label"].to_numpy()
    right = head.predict(facts.read_images(base["sha256"].to_list())) == labels
    chance = np.unique(labels, return_counts=True)[1].max() / len(labels)
    return line(head, (float(right.mean()), *wilson(right.sum(), len(right))), chance, clashes(split.rows()))


def line(head: Any, accuracy: tuple[float, float, float], chance: float, clashes: int = 0) -> str | None:
    """The sentences for a fitted `Shortcut`, its accuracy on base with its interval, what guessing the more frequent
    label gets, and the number of contents that carry several labels; None where nothing is to be said."""
    found, low, high = accuracy
    lines = []
    if low > chance:
        lines.append(
            f"Careful: the label shows in the files without a look at the picture ({', '.join(telling(head))}): from "
            f"these facts alone {found:.3f} [{low:.2f}–{high:.2f}] of the test images are told, guessing {chance:.3f}."
        )
    if clashes:
        lines.append(f"Careful: {clashes} {'image carries' if clashes == 1 else 'images carry'} more than one label.")
    return " ".join(lines) or None


def lines(comparisons: "Sequence[Comparison]", splits: Sequence[Split]) -> list[str]:
    """What `compare` says of a data set: the line of the first comparison that has one, or none."""
    for comparison, split in zip(comparisons, splits, strict=True):
        wanted = (pl.col("head") == NAME) & (pl.col("test") == "base")
        mine = columns.ordinary(comparison.table).filter(wanted)
        if mine.is_empty():
            continue
        head = next(head for (_, name), head in comparison.heads.items() if name == NAME)
        row, supports = mine.row(0, named=True), mine.filter(pl.col("class") != "all")["support"]
        accuracy = row["accuracy"], row["accuracy_low"], row["accuracy_high"]
        said = line(head, accuracy, max(supports.to_list()) / sum(supports.to_list()), clashes(split.rows()))
        if said:
            return [said]
    return []


def telling(head: Any) -> list[str]:
    """The facts that a fitted `Shortcut` goes by, the most helpful first."""
    shares = head.importances_
    order = np.argsort(-shares, kind="stable")[:MOST_NAMED]
    return [FACTS[number] for number in order if shares[number] >= TELLING]


def clashes(rows: pl.DataFrame) -> int:
    """How many contents (`sha256`) carry more than one `label`."""
    labels = rows.group_by("sha256").agg(pl.col("label").n_unique())
    return int((labels["label"] > 1).sum())
