"""From a source's rows to a `Dataset`: resolves splits and accounts for every file. Every kind of source ends here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import polars as pl

from toolkit.data.manifest import SCHEMA, Dataset, Level, alike, hash_rows, reasons
from toolkit.data.sources.cifake import CATEGORIES, ODD, cifake_numbers
from toolkit.data.sources.layout import arrange
from toolkit.data.sources.template import RESERVED, arrange_as
from toolkit.data.sources.vocabulary import split_within
from toolkit.errors import DataError, listed

MOST_NAMED = 5
NOT_JOINED = ("path", "split", "original", "table")
MOST_VALUES = 10_000
"""Columns with more values, as of captions or addresses, hold nothing that could be held out."""
SHARE_TO_TEST = 0.2
"""Drawn as test split from data that names no splits, unless `Reading.test_share` says otherwise."""


@dataclass(frozen=True)
class Reading:
    """What the user states about how to read data: the `layout` of folders (`{split}/{label}`), the `columns` of a
    table (path, label, split, category -> the column), and the share of images to test on if there is no split.
    `without_split` (`train` or `test`) is the split of all images if the data names none. `equalise` are the steps that
    every picture goes through first (`data.equalise`).
    """

    layout: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    test_share: float | None = None
    without_split: str | None = None
    equalise: str | None = None

    def facts(self) -> dict[str, Any]:
        """The fields as plain values; `Reading(**facts)` is the inverse."""
        return asdict(self)


AS_IT_LOOKS = Reading()


@dataclass
class Found:
    """What a source found. `rows`: path, label, category, split (in the source's own word) and further columns, all
    String, null or empty if unknown. `passed_over`: (path, reason) of skipped files. `levels`: (place, meaning) of each
    folder level or column, and `read_as` the same in short."""

    rows: pl.DataFrame
    passed_over: list[tuple[str, str]]
    levels: list[tuple[str, str]] = field(default_factory=list)
    read_as: str = ""
    notes: list[str] = field(default_factory=list)
    kind: str = "folder"
    by_words: bool = False

    def drop(self, unwanted: pl.Expr, reason: pl.Expr) -> None:
        """Skip the `unwanted` rows; null counts as wanted."""
        out = self.rows.filter(unwanted.fill_null(False)).select("path", reason=reason.cast(pl.String))
        self.passed_over += out.rows()
        self.rows = self.rows.filter(~unwanted.fill_null(False))


def found_in_folders(paths: Sequence[str], passed_over: Sequence[tuple[str, str]], asked: Reading) -> Found:
    """The rows of these images by their folders."""
    made = arrange(paths) if asked.layout is None else arrange_as(paths, asked.layout)
    missing = [pl.lit(None, dtype=pl.String).alias(name) for name in SCHEMA if name not in made.rows.columns]
    return Found(
        made.rows.with_columns(missing),
        [*passed_over, *made.passed_over],
        made.levels,
        made.read_as,
        by_words=made.by_words,
    )


def assemble(found: Found, name: str, what: str, place: str, read: Callable[[str], bytes], asked: Reading) -> Dataset:
    """The data set of these rows; `what` describes it (`images in the folder x`), `place` is its path or address.

    Raises DataError if no image has a label, or if the data's splits are not known words.
    """
    found.rows = found.rows.drop([one for one in RESERVED if one != "path" and one in found.rows.columns])
    unlabelled = pl.col("label").is_null() | (pl.col("label").str.strip_chars() == "")
    found.drop(unlabelled, pl.lit("no label"))
    if found.rows.is_empty():
        raise DataError(_nothing(found, place))
    found.rows, notes = join_spellings(found.rows)
    found.notes += notes
    without = _settle_splits(found, place, asked)
    share = SHARE_TO_TEST if without and not asked.without_split and asked.test_share is None else asked.test_share
    kind, what = (_read_as_cifake(found), what) if found.kind != "table" else (found.kind, what)
    found.rows = _with_nulls(found.rows)
    dataset = Dataset(name, "", found.rows, read, kind, reasons(found.passed_over), notes=tuple(found.notes))
    if share is not None:
        dataset = _draw_split(dataset, share, found)
    what = what.replace("images", "CIFAKE", 1) if kind == "cifake" else what
    as_what = f", read as {found.read_as}" if found.read_as and kind != "cifake" else ""
    described = f"{what}{as_what}: {len(dataset.rows):,} images"
    return replace(dataset, description=described, layout=_counted(found.levels, dataset.rows))


def join_spellings(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """`rows` in which labels, categories and other values that differ only in case, Unicode form or spaces around them
    are the most frequent one (else a held-out `cat` would train as `Cat`), and notes on that."""
    notes = []
    for column in [name for name, kind in rows.schema.items() if kind == pl.String and name not in NOT_JOINED]:
        counts = rows[column].drop_nulls().rename("value").value_counts(name="images")
        if len(counts) > MOST_VALUES:
            continue
        spellings: dict[str, list[str]] = {}
        for value in counts.sort("images", "value", descending=[True, False])["value"]:
            spellings.setdefault(alike(value), []).append(value)
        several = [same for blank, same in spellings.items() if blank and len(same) > 1]
        rows = rows.with_columns(pl.col(column).replace({one: same[0] for same in several for one in same[1:]}))
        notes += [f"{listed(sorted(same))} count as one {column}, {same[0]}." for same in several[:MOST_NAMED]]
        if len(several) > MOST_NAMED:
            notes.append(f"So do {len(several) - MOST_NAMED:,} more values of {column}.")
    return rows, notes


def _counted(levels: Sequence[tuple[str, str]], rows: pl.DataFrame) -> tuple[Level, ...]:
    def values(meaning: str) -> dict[str, int]:
        counts = rows[meaning].drop_nulls().cast(pl.String).value_counts()
        return dict(counts.sort(meaning).rows())

    return tuple(Level(place, meaning, values(meaning)) for place, meaning in levels if meaning in rows.columns)


def _with_nulls(rows: pl.DataFrame) -> pl.DataFrame:
    """The manifest's columns first; empty cells become null."""
    further = [name for name in rows.columns if name not in (*SCHEMA, "original")]
    named = rows.select(*SCHEMA, *further)
    return named.with_columns(
        pl.when(pl.col(one).str.strip_chars() != "").then(pl.col(one)).alias(one) for one in ("category", *further)
    )


def _settle_splits(found: Found, where: str, asked: Reading) -> bool:
    """Only train and test remain. Validation becomes the test split if there is none; rows of an unknown split are
    skipped. Returns whether the data has no split at all."""
    known = {word: split_within(word) for word in found.rows["split"].drop_nulls().unique()}
    split = pl.col("split").replace_strict(known, default=None, return_dtype=pl.String)
    found.rows = found.rows.with_columns(said=pl.col("split"), split=split)
    splits = set(found.rows["split"].drop_nulls())
    if not splits:
        _require_no_words(found, where, asked)
        found.rows = found.rows.with_columns(split=pl.lit(asked.without_split or "train")).drop("said")
        return True
    said = pl.col("said").fill_null("")
    unknown = (
        pl.when(said == "")
        .then(pl.lit("neither in train nor in test"))
        .otherwise(pl.format("neither in train nor in test: split {}", said))
    )
    found.drop(pl.col("split").is_null(), unknown)
    if "test" in splits:
        found.drop(pl.col("split") == "val", pl.format("a validation split beside the test split: {}", said))
    elif "val" in splits:
        names = sorted(set(found.rows.filter(pl.col("split") == "val")["said"].str.to_lowercase()))
        found.notes.append(f"There is no test split: {' and '.join(names)} is used as the test split.")
        found.rows = found.rows.with_columns(pl.col("split").replace("val", "test"))
    found.rows = found.rows.drop("said")
    if asked.test_share is not None and splits != {"train"}:
        raise DataError(f"{where} has a test split of its own: leave --test-share out.")
    if splits == {"train"} and asked.test_share is None:
        found.notes.append("There is only a training split: --test-share 0.2 draws a test split from it.")
    return False


def _require_no_words(found: Found, where: str, asked: Reading) -> None:
    """Raise DataError if the rows name splits, none of them known, unless a share of them is to be drawn."""
    said = sorted(set(found.rows["said"].drop_nulls()) - {""})
    if asked.test_share is not None or not said:
        return
    counts = found.rows["label"].value_counts(sort=True).rows()
    labels = ", ".join(f"{label} ({count:,})" for label, count in counts[:MOST_NAMED])
    more = f" and {len(counts) - MOST_NAMED:,} more" if len(counts) > MOST_NAMED else ""
    raise DataError(
        f"{where} holds {len(found.rows):,} images of the labels {labels}{more}, but its splits are called "
        f"{', '.join(said[:MOST_NAMED])}: --test-share 0.2 draws a test split, --layout '{{split}}/{{label}}' says "
        f"what folders mean, --columns split=NAME which column it is."
    )


def _draw_split(dataset: Dataset, share: float, found: Found) -> Dataset:
    """Each image is assigned by its content, so that copies stay together and the split never changes. Unreadable
    images are put in the test split."""
    hashed = hash_rows(dataset, dataset.rows.select("path"))
    tests = [key is None or int(key[:8], 16) < share * 2**32 for key in hashed["sha256"]]
    drawn = pl.Series("split", ["test" if one else "train" for one in tests], dtype=pl.Categorical)
    by = "by their bytes, so always the same ones"
    note = f"{sum(tests):,} of {len(tests):,} images were drawn as test split, {by} (--test-share {share:g})."
    return replace(dataset, rows=dataset.rows.with_columns(drawn), notes=(*found.notes, note))


def _read_as_cifake(found: Found) -> str:
    """Read CIFAKE's categories and order from the file names if most fit; skip odd ones. Returns the kind of data."""
    if found.rows["category"].drop_nulls().len() or set(found.rows.columns) - {*SCHEMA, "original"}:
        return found.kind
    named = found.rows["original"] if "original" in found.rows.columns else found.rows["path"]
    names = named.fill_null("").str.split("/").list.last()
    numbers = cifake_numbers(names, found.rows["label"].unique().to_list())
    if numbers is None:
        return found.kind
    category = pl.col("suffix").replace_strict(CATEGORIES, return_dtype=pl.String)
    rows = found.rows.with_columns(*numbers, pl.col("label").str.to_uppercase())
    found.rows = rows.with_columns(category=category)
    found.drop(pl.col("number").is_null(), pl.lit(ODD))
    order = ["number", "suffix"] if found.kind == "huggingface" else ["number", "suffix", "path"]
    found.rows = found.rows.sort(order, maintain_order=True).drop("number", "suffix")
    found.levels.append(("file's name", "category"))
    return "cifake"


def _nothing(found: Found, where: str) -> str:
    """What was found instead of labelled images."""
    by_reason = reasons(found.passed_over).group_by("reason", maintain_order=True).agg(pl.len(), pl.col("path").first())
    met = "; ".join(f"{count:,} {reason} ({path})" for reason, count, path in by_reason.head(3).rows())
    return (
        f"{where} holds no images in folders split/label/ or split/label/category/ (split: train or test; label: "
        f"REAL, FAKE, or names of your own){': ' + met if met else ''}. --layout says what folders and names mean, as "
        f"in '{{split}}/{{label}}' or '{{split}}/{{label}}_*.jpg'."
    )
