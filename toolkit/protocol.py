"""Who trains and who tests. The novel category never trains: `_trainable` is the one place that decides it."""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from toolkit.errors import SelectionError
from toolkit.manifest import Dataset
from toolkit.manifest import hash_rows as hash_all

NONE = "none"
FEWEST = 2

HashRows = Callable[[Dataset, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Selection:
    """The rows of one comparison, each with path, label, category, split, sha256.

    `train` and `base` hold no image of the category `held_out`, `novel` holds test images of that category alone.
    `leaks` counts the test images that were passed over because their bytes are in `train`.
    """

    held_out: str
    train: pl.DataFrame
    base: pl.DataFrame
    novel: pl.DataFrame
    leaks: int

    def tests(self) -> dict[str, pl.DataFrame]:
        """The test sets that have images: `base`, and `novel` where a category is held out."""
        return {name: rows for name, rows in (("base", self.base), ("novel", self.novel)) if len(rows)}

    def rows(self) -> pl.DataFrame:
        """Every row of the comparison."""
        return pl.concat([self.train, self.base, self.novel])

    def train_sha256(self) -> str:
        """A hash over the training images' contents and labels, in their order."""
        return training_set_sha256(self.train)


def training_set_sha256(train: pl.DataFrame) -> str:
    """A hash over the contents and labels of training rows (columns `sha256`, `label`), in their order."""
    digest = hashlib.sha256()
    for key, label in train.select("sha256", "label").iter_rows():
        digest.update(f"{key} {label}\n".encode())
    return digest.hexdigest()


def held_out_categories(dataset: Dataset, split: Sequence[str]) -> list[str]:
    """The categories that `--split` names, each held out in its turn; `none` stands for no category.

    Without a name it is `cat`, as in the study, or `none` where the data has no categories. Raises SelectionError for a
    category that the data does not have.
    """
    categories = dataset.categories()
    wanted = list(dict.fromkeys(name.strip() for part in split for name in part.split(",") if name.strip()))
    if not wanted:
        wanted = ["cat"] if categories else [NONE]
    if wanted == [NONE]:
        return [NONE]
    if wanted == ["all"] and categories:
        return categories
    for name in wanted:
        if name not in categories:
            raise SelectionError(_unknown(name, dataset.name, categories))
    return wanted


def _unknown(name: str, data: str, categories: list[str]) -> str:
    if not categories:
        return f"{data} has no categories, so --split {name} holds nothing out: leave --split out."
    near = difflib.get_close_matches(name, categories, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"{data} has no category {name!r}.{guess} --split takes {', '.join(categories)}, all, or none."


def select(
    dataset: Dataset,
    held_out: str,
    train_per_label: int | None = 450,
    test_per_label: int | None = 100,
    keep_leaks: bool = False,
    seed: int = 0,
    hash_rows: HashRows = hash_all,
) -> Selection:
    """The first N readable rows of each label, in the data's order; None takes all.

    A test image whose bytes are in the training set is passed over before the first N are taken, unless `keep_leaks`.
    A `seed` other than 0 draws the training rows by chance instead. Only the rows that are needed are hashed. Raises
    SelectionError where a label has fewer than two training images or no test image.
    """
    rows = dataset.rows
    train = _first(dataset, _shuffled(_trainable(rows, held_out), seed), train_per_label, hash_rows, set())[0]
    seen = set() if keep_leaks else set(train["sha256"].to_list())
    tests = rows.filter(pl.col("split") == "test")
    is_novel = pl.col("category").eq_missing(pl.lit(held_out)) if held_out != NONE else pl.lit(False)
    base, base_leaks = _first(dataset, tests.filter(~is_novel), test_per_label, hash_rows, seen)
    novel, novel_leaks = _first(dataset, tests.filter(is_novel), test_per_label, hash_rows, seen)
    selection = Selection(held_out, train, base, novel, base_leaks + novel_leaks)
    _check(dataset, selection)
    return selection


def _trainable(rows: pl.DataFrame, held_out: str) -> pl.DataFrame:
    """The training rows without the held-out category."""
    train = rows.filter(pl.col("split") == "train")
    return train if held_out == NONE else train.filter(pl.col("category").ne_missing(pl.lit(held_out)))


def _shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    return rows if seed == 0 else rows[np.random.default_rng(seed).permutation(len(rows))]


def _first(
    dataset: Dataset, rows: pl.DataFrame, per_label: int | None, hash_rows: HashRows, seen: set[str]
) -> tuple[pl.DataFrame, int]:
    """The first `per_label` readable rows of each label whose content is not in `seen`; and how many were in it."""
    kept, leaks = [], 0
    for label in dataset.labels():
        found, passed = _first_of_label(dataset, rows.filter(pl.col("label") == label), per_label, hash_rows, seen)
        kept.append(found)
        leaks += passed
    return pl.concat(kept), leaks


def _first_of_label(
    dataset: Dataset, rows: pl.DataFrame, count: int | None, hash_rows: HashRows, seen: set[str]
) -> tuple[pl.DataFrame, int]:
    """Hashes just as many rows as it takes to have `count` that can be used."""
    count = len(rows) if count is None else count
    parts, leaks, start, have = [hash_rows(dataset, rows.head(0))], 0, 0, 0
    while have < count and start < len(rows):
        hashed = hash_rows(dataset, rows.slice(start, count - have))
        start += count - have
        readable = hashed.filter(pl.col("sha256").is_not_null())
        fresh = readable.filter(~pl.col("sha256").is_in(list(seen))) if seen else readable
        leaks += len(readable) - len(fresh)
        have += len(fresh)
        parts.append(fresh)
    return pl.concat(parts).select("path", "label", "category", "split", "sha256"), leaks


def _check(dataset: Dataset, selection: Selection) -> None:
    novel = [("novel test", selection.novel, 1)] if selection.held_out != NONE else []
    for name, rows, fewest in [("training", selection.train, FEWEST), ("base test", selection.base, 1), *novel]:
        for label in dataset.labels():
            count = int((rows["label"] == label).sum())
            if count < fewest:
                raise SelectionError(
                    f"{dataset.name} has {count} {name} images of label {label!r} "
                    f"({selection.held_out!r} held out); at least {fewest} are needed."
                )
    if selection.held_out != NONE and (selection.train["category"] == selection.held_out).any():
        raise AssertionError("an image of the novel category is in the training set")
