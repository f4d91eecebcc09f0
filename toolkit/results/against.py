"""What changed since earlier results, on the images that both scored: paired, with interval and power.

For continuous integration: `Change.worse` says whether a row got worse beyond a margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from toolkit.errors import ResultsError
from toolkit.evaluation import paired
from toolkit.evaluation.columns import TEST
from toolkit.results.published import with_recipe

ROW = ["encoder", "recipe", "head", *TEST]
"""What a line of the comparison is about; held-out values and seeds are taken together."""

REPEATED = ["split_by", "held_out", "seed"]
"""Which run of a row an image was scored in."""

ALONE = ["dataset", "model", "pretrained", "train_per_label"]
"""These only tell rows apart where either side has several: a new model may be set against the old one."""

TWINS = ["chosen_by", "encoder_id"]
"""These only tell rows apart that would be one otherwise, as those of two encoders fine-tuned with one recipe."""

HASH = "images"

TOLD = (
    "Difference: new minus old accuracy on the same images, with its 95 % interval. Tells from: the smallest "
    "difference that so many images tell from none with a power of 80 %."
)


@dataclass(frozen=True)
class Change:
    """A row of the new results against the same row of the old ones, on the `images` that both scored.

    `before` and `after` are accuracies, `low` and `high` the ends of the 95 % interval of their difference, `least` is
    the smallest difference that these images tell from none with a power of 80 %.
    """

    encoder: str
    recipe: str
    head: str
    test: str
    perturbation: str
    test_data: str
    model: str
    images: int
    gained: int
    lost: int
    before: float
    after: float
    low: float
    high: float
    least: float

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def encoder_named(self) -> str:
        """`base`, or `finetuned (robust)`."""
        return with_recipe(self.encoder, self.recipe)

    @property
    def test_named(self) -> str:
        """`novel`, or `novel jpeg:75`."""
        return " ".join(filter(None, (self.test, self.perturbation, self.test_data)))

    @property
    def name(self) -> str:
        """`base logreg on novel`."""
        return f"{self.encoder_named} {self.head} on {self.test_named}"

    def worse(self, margin: float) -> bool:
        """Whether accuracy fell by more than `margin`, and the whole interval is below zero."""
        return self.difference < -margin and self.high < 0


@dataclass(frozen=True)
class Against:
    """The changes, rows of either side that the other lacks, and how many images bear another label than before."""

    changes: list[Change]
    only_new: list[str]
    only_old: list[str]
    relabelled: int

    def worse(self, margin: float) -> list[Change]:
        """The rows that got worse beyond the margin."""
        return [one for one in self.changes if one.worse(margin)]

    def notes(self) -> list[str]:
        """Lines on what could not be compared."""
        lines = [
            f"{len(names)} {'row is' if len(names) == 1 else 'rows are'} in the {side} results alone: "
            f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}."
            for side, names in (("new", self.only_new), ("old", self.only_old))
            if names
        ]
        if self.relabelled:
            lines.append(f"{self.relabelled:,} images bear another label than before, and both sides are judged by it.")
        return lines


def against(new: pl.DataFrame, old: pl.DataFrame) -> Against:
    """Compare two frames of predictions (`columns.PREDICTIONS`) row by row, on the images with the same content.

    `new` is about one study. Where `old` has a row on several sets of images, the one with most images in common
    counts. Raises ResultsError where nothing is in common.
    """
    key = ROW + [name for name in ALONE if max(new[name].n_unique(), old[name].n_unique()) > 1]
    key += [name for name in TWINS if _has_several(new, key, name) or _has_several(old, key, name)]
    mine, theirs = _scored(new, key), _scored(old, key)
    by = [*key, *REPEATED]
    pairs = mine.join(theirs, on=[*by, "sha256"], how="inner", nulls_equal=True, suffix="_old", maintain_order="left")
    sets = pairs.group_by(*by, f"{HASH}_old").agg(pl.len()).sort("len", f"{HASH}_old", descending=[True, False])
    largest = sets.unique(by, keep="first", maintain_order=True).drop("len")
    pairs = pairs.join(largest, on=[*by, f"{HASH}_old"], how="semi", nulls_equal=True)
    if pairs.is_empty():
        raise ResultsError("The old and the new results have no row on the same images in common: nothing to compare.")
    changes = [_change(rows) for _, rows in pairs.group_by(key, maintain_order=True)]
    only_new, only_old = (_names(mine, pairs, key), _names(theirs, pairs, key))
    other = pairs.filter(pl.col("label") != pl.col("label_old"))["sha256"].n_unique()
    return Against(changes, only_new, only_old, other)


def _has_several(predictions: pl.DataFrame, key: Sequence[str], name: str) -> bool:
    """Whether one row on one set of images has several values of the column `name`."""
    values = predictions.group_by(*key, *REPEATED, HASH).agg(pl.col(name).n_unique())
    return bool((values[name] > 1).any())


def _scored(predictions: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """A row for each content that a row of the results was scored on."""
    by = [*key, *REPEATED]
    blank = [pl.col(name).fill_null("") for name in ("recipe", *TEST)]
    chosen = predictions.with_columns(blank).select(
        *dict.fromkeys([*by, "model"]), HASH, "sha256", "label", "predicted"
    )
    return chosen.unique([*by, HASH, "sha256"], keep="first", maintain_order=True)


def _names(rows: pl.DataFrame, pairs: pl.DataFrame, key: Sequence[str]) -> list[str]:
    """The rows that have no pair."""
    alone = rows.join(pairs, on=key, how="anti", nulls_equal=True).select(key).unique(maintain_order=True)
    return [" / ".join(str(value) for value in row if value not in ("", None)) for row in alone.iter_rows()]


def _change(rows: pl.DataFrame) -> Change:
    """One line from its pairs of predictions: an image that several runs scored counts once, with its mean."""
    after, before = (pl.col(name) == pl.col("label") for name in ("predicted", "predicted_old"))
    told = rows.with_columns(after=after.cast(pl.Int64), before=before.cast(pl.Int64))
    gain = (pl.col("after") - pl.col("before")).sum()
    images = told.group_by("sha256", maintain_order=True).agg(gain=gain, runs=pl.len().cast(pl.Int64))
    scored = images["gain"].to_numpy(), images["runs"].to_numpy()
    low, high = paired.interval(*scored)
    first = rows.row(0, named=True)
    change = (told["after"] - told["before"]).to_numpy()
    return Change(
        **{name: first[name] for name in (*ROW, "model")},
        images=len(images),
        gained=int((change > 0).sum()),
        lost=int((change < 0).sum()),
        before=float(told["before"].mean()),  # type: ignore[arg-type]
        after=float(told["after"].mean()),  # type: ignore[arg-type]
        low=low,
        high=high,
        least=paired.smallest_told(*scored),
    )
