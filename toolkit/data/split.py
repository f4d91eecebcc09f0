"""Who trains and who tests. The novel category never trains: `_of_other_categories` alone decides it."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from toolkit.data.manifest import Dataset
from toolkit.data.manifest import hash_rows as hash_all
from toolkit.errors import SelectionError, did_you_mean

NONE = "none"
FEWEST = 2

log = logging.getLogger(__name__)
NOTHING = pl.Series("sha256", [], dtype=pl.String)

HashRows = Callable[[Dataset, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class ScoredSet:
    """Test rows (path, label, category, split, sha256) that are scored together, and what tells them from others.

    `test` is `base` or `novel`, or `other` where the rows are another data set's, `test_data`. `perturbation` says what
    was done to the images. `leaks` counts those that were passed over because their bytes are in the training set.
    """

    test: str
    rows: pl.DataFrame
    leaks: int = 0
    perturbation: str = ""
    test_data: str = ""

    def key(self) -> tuple[str, ...]:
        """Its values of the columns `columns.TEST`."""
        return self.test, self.perturbation, self.test_data


@dataclass(frozen=True)
class Selection:
    """The rows of one comparison, each with path, label, category, split, sha256.

    `train` and `base` hold no image of the category `held_out`, `novel` holds test images of that category alone. An
    image without a category might belong to it, so where a category is held out such an image is in none of them.
    `leaks` counts the test images that were passed over because their bytes are in `train`. `seed` is what chose the
    training rows and decides all else that is random in the comparison.
    """

    held_out: str
    train: pl.DataFrame
    base: pl.DataFrame
    novel: pl.DataFrame
    leaks: int
    seed: int = 0

    def tests(self) -> dict[str, pl.DataFrame]:
        """The test sets that have images: `base`, and `novel` where a category is held out."""
        return {name: rows for name, rows in (("base", self.base), ("novel", self.novel)) if len(rows)}

    def scored_sets(self) -> list[ScoredSet]:
        """The same as sets to score."""
        return [ScoredSet(name, rows, self.leaks) for name, rows in self.tests().items()]

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
    takes = f"--split takes {', '.join(categories)}, all, or none"
    if name in ("all", NONE):
        return f"--split {name} stands alone: {takes}."
    return f"{data} has no category {name!r}.{did_you_mean(name, categories)} {takes}."


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
    trainable, tests = (rows.filter(pl.col("split") == split) for split in ("train", "test"))
    trainable = _shuffled(_of_other_categories(trainable, held_out), seed)
    train = _first(dataset, trainable, train_per_label, hash_rows, NOTHING)[0]
    seen = NOTHING if keep_leaks else train["sha256"]
    base, base_leaks = _first(dataset, _of_other_categories(tests, held_out), test_per_label, hash_rows, seen)
    is_novel = (pl.col("category") == held_out) & (held_out != NONE)
    novel, novel_leaks = _first(dataset, tests.filter(is_novel), test_per_label, hash_rows, seen)
    selection = Selection(held_out, train, base, novel, base_leaks + novel_leaks, seed)
    _require_whole(selection, seen)
    _require_enough(dataset, selection)
    sizes = (len(selection.train), len(selection.base), len(selection.novel), selection.leaks)
    log.info("%s held out: %d train, %d base, %d novel, %d leaks dropped", held_out, *sizes)
    return selection


def first_tests(
    dataset: Dataset, test_per_label: int | None, hash_rows: HashRows, seen: pl.Series
) -> tuple[pl.DataFrame, int]:
    """The first N readable test images of each label (None: all), of every category, and how many were passed over
    because their bytes are among `seen` (SHA-256, hex). Raises SelectionError where a label has none."""
    rows, leaks = _first(dataset, dataset.rows.filter(pl.col("split") == "test"), test_per_label, hash_rows, seen)
    for label in dataset.labels():
        if not (rows["label"] == label).any():
            passed = f"; {leaks} were passed over, being in the training set (--keep-leaks keeps them)" if leaks else ""
            raise SelectionError(f"{dataset.name} has no test images of label {label!r} to score{passed}.")
    return rows, leaks


def first_fresh(dataset: Dataset, held_out: str, per_label: int, seen: pl.Series) -> pl.DataFrame:
    """The first `per_label` readable training images of each label whose contents are not in `seen` (SHA-256).

    None is of the held-out category, as far as the data has categories. `seen` are the images of a comparison, to which
    these come as new ones, to calibrate on.
    """
    trainable = dataset.rows.filter(pl.col("split") == "train")
    rows = _of_other_categories(trainable, held_out) if dataset.categories() else trainable
    return _first(dataset, rows, per_label, hash_all, seen)[0]


def _of_other_categories(rows: pl.DataFrame, held_out: str) -> pl.DataFrame:
    """The rows that are known not to be of the held-out category; a comparison with null is no knowledge."""
    return rows if held_out == NONE else rows.filter(pl.col("category") != held_out)


def _shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    return rows if seed == 0 else rows[np.random.default_rng(seed).permutation(len(rows))]


def _first(
    dataset: Dataset, rows: pl.DataFrame, per_label: int | None, hash_rows: HashRows, seen: pl.Series
) -> tuple[pl.DataFrame, int]:
    """The first `per_label` readable rows of each label whose content is not in `seen`; and how many were in it."""
    kept, leaks = [], 0
    for label in dataset.labels():
        found, passed = _first_of_label(dataset, rows.filter(pl.col("label") == label), per_label, hash_rows, seen)
        kept.append(found)
        leaks += passed
    return pl.concat(kept), leaks


def _first_of_label(
    dataset: Dataset, rows: pl.DataFrame, count: int | None, hash_rows: HashRows, seen: pl.Series
) -> tuple[pl.DataFrame, int]:
    """Hashes just as many rows as it takes to have `count` that can be used."""
    count = len(rows) if count is None else count
    parts, leaks, start, have = [hash_rows(dataset, rows.head(0))], 0, 0, 0
    while have < count and start < len(rows):
        hashed = hash_rows(dataset, rows.slice(start, count - have))
        start += count - have
        readable = hashed.filter(pl.col("sha256").is_not_null())
        fresh = readable.filter(~pl.col("sha256").is_in(seen.implode()))
        leaks += len(readable) - len(fresh)
        have += len(fresh)
        parts.append(fresh)
    names = pl.col("label", "category", "split").cast(pl.String)
    return pl.concat(parts).select("path", names, "sha256"), leaks


def _require_whole(selection: Selection, seen: pl.Series) -> None:
    """What must hold whatever the data; anything else is a mistake in this file, not the user's."""
    if selection.held_out != NONE:
        for name, rows in (("training", selection.train), ("base test", selection.base)):
            if rows["category"].null_count() or (rows["category"] == selection.held_out).any():
                raise AssertionError(f"an image that may be of the novel category is in the {name} set")
    if any(rows["sha256"].is_in(seen.implode()).any() for rows in (selection.base, selection.novel)):
        raise AssertionError("the bytes of a test image are in the training set")


def _require_enough(dataset: Dataset, selection: Selection) -> None:
    novel = [("novel test", selection.novel, 1)] if selection.held_out != NONE else []
    for name, rows, fewest in [("training", selection.train, FEWEST), ("base test", selection.base, 1), *novel]:
        for label in dataset.labels():
            count = int((rows["label"] == label).sum())
            if count < fewest:
                raise SelectionError(
                    _too_few(dataset, selection, f"{count or 'no'} {name} images of label {label!r}", fewest)
                )


def _too_few(dataset: Dataset, selection: Selection, what: str, fewest: int) -> str:
    held_out = "" if selection.held_out == NONE else f" with {selection.held_out!r} held out"
    leaks = (
        f" {selection.leaks} test images were passed over as leaks; --keep-leaks keeps them." if selection.leaks else ""
    )
    other = "" if selection.held_out == NONE else " or hold out another category (--split)"
    return f"{dataset.name} has {what}{held_out}; it takes {fewest} or more: add images{other}.{leaks}"
