"""Training and test rows. `_known_to_differ` alone ensures that what is held out never trains.

`--split` holds out a value of a column, such as one category; every test set then has all labels. With `--split-by
label` it holds out labels: the base and new classes of Zhou et al. 2022 (CoCoOp, section 4.1). Then the base labels are
tested among themselves, and so are the new ones.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from toolkit.data.held_out import CATEGORY, NONE, labels_without, new_labels
from toolkit.data.labels import Labels
from toolkit.data.manifest import Dataset
from toolkit.data.manifest import hash_rows as hash_all
from toolkit.errors import SelectionError

FEWEST = 2

log = logging.getLogger(__name__)
NOTHING = pl.Series("sha256", [], dtype=pl.String)

HashRows = Callable[[Dataset, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class TestSet:
    """Test rows (path, label, category, split, group, sha256) that are scored together.

    `test` is `base` or `novel`, or `other` for rows of another data set, `test_data`. `perturbation` names how the
    images were changed. `leaks` counts images left out because their bytes are in the training set. `labels` are the
    classes of this test set, in the order of `Labels.of`; empty means all labels of the comparison.
    """

    __test__ = False  # else pytest collects the class

    test: str
    rows: pl.DataFrame
    leaks: int = 0
    perturbation: str = ""
    test_data: str = ""
    labels: tuple[str, ...] = ()

    def key(self) -> tuple[str, ...]:
        """Its values of the columns `columns.TEST`."""
        return self.test, self.perturbation, self.test_data


@dataclass(frozen=True)
class Split:
    """The rows of one comparison, each with path, label, category, split, group, sha256.

    `held_out` is a value of the column `by`; a row's `group` is its value there (`with_groups`). `train` and `base`
    hold no image of the held-out value, `novel` only test images of it. A row with an unknown value might have the
    held-out one, so it is in none of the three. `leaks` counts test images left out because their bytes are in `train`,
    `near_copies` those left out as near copies of a training image (`data.near_copies`). `seed` drew the training rows
    and seeds everything random. `new_labels` are the held-out labels where `by` is `label`, else empty.
    `train_per_label` is the number of training images of each label that was asked for; None: all.
    """

    held_out: str
    train: pl.DataFrame
    base: pl.DataFrame
    novel: pl.DataFrame
    leaks: int
    seed: int = 0
    by: str = CATEGORY
    near_copies: int = 0
    new_labels: tuple[str, ...] = ()
    train_per_label: int | None = None

    @property
    def held_out_groups(self) -> frozenset[str]:
        """The groups that training must not hold; none where nothing is held out."""
        return frozenset(self.new_labels) or frozenset({self.held_out} - {NONE})

    def known_labels(self, labels: Sequence[str]) -> list[str]:
        """Those of the comparison's `labels` that training knows, in their order."""
        return [label for label in labels if label not in self.new_labels]

    def tests(self) -> dict[str, pl.DataFrame]:
        """The test sets that have images: `base`, and `novel` where a value is held out."""
        return {name: rows for name, rows in (("base", self.base), ("novel", self.novel)) if len(rows)}

    def scored_labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of each test set as `TestSet.labels` holds them: in their order, none where no label is held
        out."""
        known = self.train["label"].unique().sort().to_list() if self.new_labels else []
        return {"base": Labels.of(known).names, "novel": Labels.of(self.new_labels).names}

    def test_sets(self) -> list[TestSet]:
        """The same as `TestSet`s."""
        labels = self.scored_labels()
        return [TestSet(name, rows, self.leaks, labels=labels[name]) for name, rows in self.tests().items()]

    def rows(self) -> pl.DataFrame:
        """Every row of the comparison."""
        return pl.concat([self.train, self.base, self.novel])

    def train_sha256(self) -> str:
        """A hash over the training images' contents and labels, in their order."""
        return training_set_sha256(self.train)

    def groups(self) -> np.ndarray | None:
        """The training rows' groups `[N]`, by which heads choose settings; None if one is unknown."""
        return groups_of(self.train)


def groups_of(rows: pl.DataFrame) -> np.ndarray | None:
    """The `group` of each row `[N]`; None where one is unknown."""
    return None if rows["group"].null_count() else rows["group"].to_numpy()


def training_set_sha256(train: pl.DataFrame) -> str:
    """A hash over the contents and labels of training rows (columns `sha256`, `label`), in their order."""
    digest = hashlib.sha256()
    for key, label in train.select("sha256", "label").iter_rows():
        digest.update(f"{key} {label}\n".encode())
    return digest.hexdigest()


def with_groups(dataset: Dataset, by: str, hash_rows: HashRows) -> pl.DataFrame:
    """The rows of `dataset` with a column `group`: the value in the column `by`.

    If no row of a label has a value there (real photographs have no generator), its images are divided among the values
    by their content, so that equal images share a group. Other rows without a value have no group.
    """
    rows = dataset.rows.with_columns(group=pl.col(by))
    values = rows["group"].drop_nulls().unique().cast(pl.String).sort()
    without = labels_without(rows, by)
    if values.is_empty() or not without:
        return rows
    found = []
    for label in without:
        hashed = hash_rows(dataset, rows.filter(pl.col("label") == label)).drop_nulls("sha256")
        in_tests = hashed.filter(pl.col("split") == "test")["sha256"].unique().sort()
        in_train = hashed["sha256"].unique().sort()
        contents = pl.concat([in_tests, in_train.filter(~in_train.is_in(in_tests.implode()))])
        turns = pl.Series("dealt", [values[number % len(values)] for number in range(len(contents))], dtype=pl.String)
        found.append(hashed.join(pl.DataFrame({"sha256": contents, "dealt": turns}), on="sha256"))
    dealt = pl.concat([one.select("path", "dealt") for one in found])
    joined = rows.join(dealt, on="path", how="left", maintain_order="left")
    return joined.with_columns(group=pl.coalesce(pl.col("group").cast(pl.String), "dealt")).drop("dealt")


def select(
    dataset: Dataset,
    held_out: str,
    train_per_label: int | None = 450,
    test_per_label: int | None = 100,
    keep_leaks: bool = False,
    seed: int = 0,
    hash_rows: HashRows = hash_all,
    by: str = CATEGORY,
    also_passed_over: pl.Series = NOTHING,
) -> Split:
    """The first N readable rows of each label, in the data's order; None takes all.

    Test images whose bytes are in the training set are skipped unless `keep_leaks`. So are those whose SHA-256 (hex) is
    in `also_passed_over`: near copies of training images. A `seed` other than 0 draws the training rows at random. Only
    the rows needed are hashed. Raises SelectionError if a label has fewer than two training images (one, if no more are
    asked for) or no test image.
    """
    rows, new = with_groups(dataset, by, hash_rows), new_labels(dataset.labels(), held_out, by)
    groups = new or tuple({held_out} - {NONE})
    trainable, tests = (rows.filter(pl.col("split") == split) for split in ("train", "test"))
    trainable = _shuffled(_known_to_differ(trainable, groups), seed)
    train = _first(dataset, trainable, train_per_label, hash_rows, NOTHING)[0]
    seen = pl.concat([NOTHING if keep_leaks else train["sha256"], also_passed_over])
    base, passed_base = _first(dataset, _known_to_differ(tests, groups), test_per_label, hash_rows, seen)
    novel, passed_novel = _first(dataset, tests.filter(_is_one_of(groups)), test_per_label, hash_rows, seen)
    passed = pl.concat([passed_base, passed_novel])
    leaks = int(passed.is_in(train["sha256"].implode()).sum())
    split = Split(held_out, train, base, novel, leaks, seed, by, len(passed) - leaks, new, train_per_label)
    _require_whole(split, seen)
    _require_enough(dataset, split)
    sizes = (len(split.train), len(split.base), len(split.novel), split.leaks)
    log.info("%s held out: %d train, %d base, %d novel, %d leaks dropped", held_out, *sizes)
    return split


def with_fewer(split: Split, train_per_label: int | None) -> Split:
    """The same comparison with the first N training images of each label alone (None: all that it has).

    Fewer are always among more, and the test images stay: none is in the training set of the largest number.
    """
    if train_per_label is None:
        return split
    first = pl.int_range(pl.len()).over("label") < train_per_label
    return replace(split, train=split.train.filter(first), train_per_label=train_per_label)


def first_tests(
    dataset: Dataset, test_per_label: int | None, hash_rows: HashRows, seen: pl.Series
) -> tuple[pl.DataFrame, int]:
    """The first N readable test images of each label (None: all), of every category, and how many were skipped because
    their SHA-256 (hex) is in `seen`. Raises SelectionError if a label has none."""
    tests = dataset.rows.filter(pl.col("split") == "test").with_columns(group=pl.col(CATEGORY))
    rows, passed_over = _first(dataset, tests, test_per_label, hash_rows, seen)
    leaks = len(passed_over)
    for label in dataset.labels():
        if not (rows["label"] == label).any():
            passed = f"; {leaks} were passed over, being in the training set (--keep-leaks keeps them)" if leaks else ""
            raise SelectionError(f"{dataset.name} has no test images of label {label!r} to score{passed}.")
    return rows, leaks


def first_fresh(dataset: Dataset, held_out: str, per_label: int, seen: pl.Series, by: str = CATEGORY) -> pl.DataFrame:
    """The first `per_label` readable training images of each label that are not in `seen` (SHA-256).

    If the data has the column `by`, none is of the held-out value. `seen` are the images of a comparison, for which
    these are new images to calibrate on.
    """
    rows = dataset.rows if by in dataset.rows.columns else dataset.rows.with_columns(pl.lit(None, pl.String).alias(by))
    trainable = rows.filter(pl.col("split") == "train").with_columns(group=pl.col(by))
    known = trainable["group"].null_count() < len(trainable)
    groups = new_labels(dataset.labels(), held_out, by) or tuple({held_out} - {NONE})
    if known:  # a label without any value, as photographs have no generator, is of none that is held out
        of_none = pl.col("label").cast(pl.String).is_in(labels_without(trainable, "group"))
        trainable = pl.concat([_known_to_differ(trainable.filter(~of_none), groups), trainable.filter(of_none)])
    return _first(dataset, trainable, per_label, hash_all, seen)[0]


def _known_to_differ(rows: pl.DataFrame, held_out: Collection[str]) -> pl.DataFrame:
    """The rows whose group is known to differ from those held out; null is not known to."""
    return rows.filter(~_is_one_of(held_out)) if held_out else rows


def _is_one_of(held_out: Collection[str]) -> pl.Expr:
    """Whether the group is held out; null where it is unknown."""
    return pl.col("group").cast(pl.String).is_in(list(held_out), nulls_equal=False)


def _shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    return rows if seed == 0 else rows[np.random.default_rng(seed).permutation(len(rows))]


def _first(
    dataset: Dataset, rows: pl.DataFrame, per_label: int | None, hash_rows: HashRows, seen: pl.Series
) -> tuple[pl.DataFrame, pl.Series]:
    """The first `per_label` readable rows of each label with a SHA-256 not in `seen`; and the hashes skipped."""
    kept, passed_over = [], [NOTHING]
    for label in dataset.labels():
        found, passed = _first_of_label(dataset, rows.filter(pl.col("label") == label), per_label, hash_rows, seen)
        kept.append(found)
        passed_over.append(passed)
    return pl.concat(kept), pl.concat(passed_over)


def _first_of_label(
    dataset: Dataset, rows: pl.DataFrame, count: int | None, hash_rows: HashRows, seen: pl.Series
) -> tuple[pl.DataFrame, pl.Series]:
    """Hash rows only until `count` usable ones are found."""
    count = len(rows) if count is None else count
    parts, passed_over, start, have = [hash_rows(dataset, rows.head(0))], [NOTHING], 0, 0
    while have < count and start < len(rows):
        hashed = hash_rows(dataset, rows.slice(start, count - have))
        start += count - have
        readable = hashed.filter(pl.col("sha256").is_not_null())
        is_seen = pl.col("sha256").is_in(seen.implode())
        fresh = readable.filter(~is_seen)
        passed_over.append(readable.filter(is_seen)["sha256"])
        have += len(fresh)
        parts.append(fresh)
    names = pl.col("label", "category", "split", "group").cast(pl.String)
    return pl.concat(parts).select("path", names, "sha256"), pl.concat(passed_over)


def _require_whole(split: Split, seen: pl.Series) -> None:
    """Invariants for any data: a violation is a bug in this module, not a mistake of the user."""
    if split.held_out_groups:
        for name, rows in (("training", split.train), ("base test", split.base)):
            if rows["group"].null_count() or rows["group"].is_in(list(split.held_out_groups)).any():
                raise AssertionError(f"an image that may be of the novel value is in the {name} set")
    if any(rows["sha256"].is_in(seen.implode()).any() for rows in (split.base, split.novel)):
        raise AssertionError("the bytes of a test image are in the training set")


def _require_enough(dataset: Dataset, split: Split) -> None:
    known = split.known_labels(dataset.labels())
    novel = [("novel test", split.novel, 1, split.new_labels or known)] if split.held_out != NONE else []
    fewest_to_train = min(FEWEST, split.train_per_label or FEWEST)
    for name, rows, fewest, labels in [
        ("training", split.train, fewest_to_train, known),
        ("base test", split.base, 1, known),
        *novel,
    ]:
        for label in labels:
            count = int((rows["label"] == label).sum())
            if count < fewest:
                raise SelectionError(
                    _too_few(dataset, split, f"{count or 'no'} {name} images of label {label!r}", fewest)
                )


def _too_few(dataset: Dataset, split: Split, what: str, fewest: int) -> str:
    held_out = "" if split.held_out == NONE else f" with {split.held_out!r} held out"
    leaks = f" {split.leaks} test images were passed over as leaks; --keep-leaks keeps them." if split.leaks else ""
    other = "" if split.held_out == NONE else f" or hold out another {split.by} (--split)"
    near = f" {split.near_copies} were passed over as near copies of training images." if split.near_copies else ""
    return f"{dataset.name} has {what}{held_out}; it takes {fewest} or more: add images{other}.{leaks}{near}"
