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

from toolkit.data.labels import some
from toolkit.data.manifest import SCHEMA, Dataset
from toolkit.data.manifest import hash_rows as hash_all
from toolkit.errors import SelectionError, did_you_mean

NONE = "none"
CATEGORY = "category"
LABEL, HALF = "label", "half"
FEWEST = 2
MOST_VALUES = 200
"""A column with more values than these, or one for each image, cannot be split by."""
HELD_OUT = {"cifake": "cat", "sample": "cat"}
"""What is held out by default, by kind of data; of other data, nothing."""

log = logging.getLogger(__name__)
NOTHING = pl.Series("sha256", [], dtype=pl.String)

HashRows = Callable[[Dataset, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class TestSet:
    """Test rows (path, label, category, split, group, sha256) that are scored together.

    `test` is `base` or `novel`, or `other` for rows of another data set, `test_data`. `perturbation` names how the
    images were changed. `leaks` counts images left out because their bytes are in the training set. `labels` are the
    classes of this test set; empty means all labels of the comparison.
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

    def test_sets(self) -> list[TestSet]:
        """The same as `TestSet`s."""
        known = tuple(self.train["label"].unique().sort()) if self.new_labels else ()
        labels = {"base": known, "novel": self.new_labels}
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


def columns_to_split_by(dataset: Dataset) -> dict[str, list[str]]:
    """The columns whose values can be held out, each with its values, sorted; `category` first.

    A column qualifies with at least two values, at most `MOST_VALUES`, and at most half as many as images.
    """
    found = {}
    for name in [CATEGORY, *(name for name in dataset.rows.columns if name not in SCHEMA)]:
        values = dataset.rows[name].drop_nulls().unique().cast(pl.String).sort().to_list()
        if 2 <= len(values) <= min(MOST_VALUES, len(dataset.rows) // 2):
            found[name] = values
    return found


def held_out_values(dataset: Dataset, split: Sequence[str], by: str = CATEGORY) -> list[str]:
    """The values of the column `by` named by `--split`, each held out in its turn; `none` holds nothing out.

    Without `split` the default of this kind of data (`HELD_OUT`), else `none`. By `label`, the named labels are held
    out together, or `half` of all. Raises SelectionError for an unknown column or value.
    """
    if by == LABEL:
        return [_held_out_labels(dataset, split)]
    columns = columns_to_split_by(dataset)
    wanted = list(dict.fromkeys(name.strip() for part in split for name in part.split(",") if name.strip()))
    if by != CATEGORY and by not in columns:
        raise SelectionError(_unknown_column(by, dataset.name, list(columns)))
    values = columns.get(by, [])
    if not wanted:
        usual = HELD_OUT.get(dataset.kind, NONE)
        wanted = [usual] if by == CATEGORY and usual in values else [NONE]
    if wanted == [NONE]:
        return [NONE]
    if wanted == ["all"] and values:
        return values
    for name in wanted:
        if name not in values:
            raise SelectionError(_unknown(name, dataset.name, by, columns))
    return wanted


def _held_out_labels(dataset: Dataset, split: Sequence[str]) -> str:
    """`half`, or the labels that `--split` names, joined by commas."""
    labels = dataset.labels()
    wanted = list(dict.fromkeys(name.strip() for part in split for name in part.split(",") if name.strip()))
    if wanted == [HALF] and HALF not in labels:
        if len(labels) < 4:
            raise SelectionError(f"Half of {len(labels)} labels cannot be told apart from each other: it takes 4.")
        return HALF
    for name in wanted:
        if name not in labels:
            guess = did_you_mean(name, labels)
            raise SelectionError(f"{dataset.name} has no label {name!r}.{guess} --split takes half or {some(labels)}.")
    if len(wanted) < 2 or len(labels) - len(wanted) < 2:
        raise SelectionError(
            f"--split-by label takes two labels or more to hold out, and leaves two or more to train on: --split half, "
            f"or some of {some(labels)}."
        )
    return ",".join(wanted)


def new_labels(labels: Sequence[str], held_out: str, by: str) -> tuple[str, ...]:
    """The labels that are held out, sorted; none where another column is split by.

    `half` holds out the second half of the sorted labels; the first one has one more where their number is odd (Zhou et
    al. 2022, CoOp's and CoCoOp's base and new classes).
    """
    if by != LABEL or held_out == NONE:
        return ()
    return tuple(sorted(labels)[(len(labels) + 1) // 2 :] if held_out == HALF else sorted(held_out.split(",")))


def what_is_held_out(dataset: Dataset, held_out: Sequence[str], by: str = CATEGORY) -> str | None:
    """A line for the user: if nothing is held out, what could be, and how; which labels are held out; or which labels
    have no value in the column `by`. None if there is nothing to say."""
    if new := new_labels(dataset.labels(), held_out[0], by):
        known = len(dataset.labels()) - len(new)
        return f"{len(new)} of {known + len(new)} labels are held out: {some(new)}. Each part is tested among its own."
    if list(held_out) != [NONE]:
        return _line_on_labels_without(dataset, by)
    ways = [
        f"--split-by {name} --split {values[0]} (or all)" if name != CATEGORY else f"--split {values[0]} (or all)"
        for name, values in columns_to_split_by(dataset).items()
    ]
    could = f"What could be: {'; '.join(ways)}." if ways else "The data has no categories or other columns to split by."
    return f"Nothing is held out, so the results say nothing about images of a new kind. {could}"


def _line_on_labels_without(dataset: Dataset, by: str) -> str | None:
    without = labels_without(dataset.rows, by)
    if not without:
        return None
    images, values = " and ".join(without), dataset.rows[by].n_unique() - 1
    return f"{images} images have no {by}: each is assigned to one of the {values} held-out values by its content."


def labels_without(rows: pl.DataFrame, by: str) -> list[str]:
    """The labels none of whose rows has a value in the column `by`, sorted."""
    named = rows.group_by("label").agg(pl.col(by).count().alias("values"))
    return named.filter(pl.col("values") == 0)["label"].sort().to_list()


def _unknown_column(by: str, data: str, columns: list[str]) -> str:
    guess = did_you_mean(by, columns)
    takes = f"--split-by takes {', '.join(columns)}" if columns else "It has no column to hold values of out"
    return f"{data} has no column {by!r} to split by.{guess} {takes}."


def _unknown(name: str, data: str, by: str, columns: dict[str, list[str]]) -> str:
    values = columns.get(by, [])
    if not values:
        other = f", or split by another column: --split-by {', '.join(columns)}" if columns else ""
        return f"{data} has no categories, so --split {name} holds nothing out: leave --split out{other}."
    takes = f"--split takes {', '.join(values)}, all, or none"
    if name in ("all", NONE):
        return f"--split {name} stands alone: {takes}."
    column = next((one for one, its in columns.items() if name in its), None)
    elsewhere = f" It is a {column}: say --split-by {column}." if column else did_you_mean(name, values)
    return f"{data} has no {by} {name!r}.{elsewhere} {takes}."


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
    return _first(dataset, _known_to_differ(trainable, groups) if known else trainable, per_label, hash_all, seen)[0]


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
