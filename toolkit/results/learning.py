"""Learning curves: accuracy by number of training images, and the number from which a costlier method pays off."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from toolkit.evaluation import columns, paired
from toolkit.results.entrants import STUDY, encoder_name, way_of
from toolkit.results.summary import newest, same_each_time

SIZE = "train_per_label"
SAME_CURVE = [name for name in columns.QUESTION if name != SIZE]
"""What the comparisons of one curve share."""

TESTED = ["held_out", "seed", "test"]
CONTESTS = (("prompt", "probe"), ("probe", "finetune"))
WORDS = {"prompt": "the prompts", "probe": "a probe", "finetune": "fine-tuning"}


@dataclass(frozen=True)
class Gain:
    """The difference in accuracy of two entrants with `size` training images per label, with its 95 % interval."""

    size: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Answer:
    """The gains of `challenger` over `holder`, the cheaper method, on one test set, smallest size first."""

    test: str
    challenger: str
    holder: str
    gains: list[Gain]

    @property
    def since(self) -> int | None:
        """The smallest size from which on all intervals are above zero; None if the largest size's is not."""
        proven: list[int] = []
        for gain in reversed(self.gains):
            if gain.low <= 0:
                break
            proven.append(gain.size)
        return proven[-1] if proven else None


@dataclass(frozen=True)
class Curve:
    """The same comparison with several numbers of training images per label, on the same test images.

    `table` has a row for each comparison, encoder, head and test set (columns `entrant`, `name`, `way`, `accuracy`,
    `SIZE`, …), `right` one for each prediction: `entrant`, `SIZE`, `TESTED`, `path`, `right` (0 or 1).
    """

    about: dict[str, Any]
    table: pl.DataFrame
    right: pl.DataFrame

    @property
    def sizes(self) -> list[int]:
        return sorted(self.table[SIZE].unique().to_list())

    @property
    def tests(self) -> list[str]:
        """`base`, and `novel` if something was held out; the last one decides which entrant is best."""
        return [test for test in ("base", "novel") if test in self.table["test"]]

    @cached_property
    def points(self) -> pl.DataFrame:
        """A row for each entrant, test set and size: number of `seeds`, `mean` and standard `deviation` over the seeds
        of the accuracy (averaged over the held-out values if there are several)."""
        by = ["entrant", "name", "shown", "encoder", "recipe", "head", "way", "test", SIZE]
        each = self.table.group_by(*by, "seed", maintain_order=True).agg(pl.col("accuracy").mean())
        found = each.group_by(by, maintain_order=True).agg(
            seeds=pl.len(), mean=pl.col("accuracy").mean(), deviation=pl.col("accuracy").std()
        )
        order = {name: number for number, name in enumerate(self.table["entrant"].unique(maintain_order=True))}
        return found.sort(pl.col("entrant").replace_strict(order, return_dtype=pl.Int64), "test", SIZE)

    def best(self, way: str) -> str | None:
        """The best entrant of a method: among those with the most sizes, the one with the highest mean accuracy on the
        last of `tests`. It is picked on the test images, as in the verdict."""
        mine = self.points.filter((pl.col("way") == way) & (pl.col("test") == self.tests[-1]))
        ranked = mine.group_by("entrant", maintain_order=True).agg(sizes=pl.len(), mean=pl.col("mean").mean())
        ranked = ranked.sort("sizes", "mean", descending=True, maintain_order=True)
        return next(iter(ranked["entrant"].to_list()), None)

    def gains(self, challenger: str, holder: str, test: str) -> list[Gain]:
        """The gain of one entrant over another, at each size that both have."""
        on, mine = [SIZE, *TESTED, "path"], self.right.filter(pl.col("test") == test)
        first, second = (mine.filter(pl.col("entrant") == one).drop("entrant") for one in (challenger, holder))
        pairs = first.join(second, on=on, suffix="_second").with_columns(gain=pl.col("right") - pl.col("right_second"))
        return [_gain(int(size), rows) for (size,), rows in pairs.sort(SIZE).group_by(SIZE, maintain_order=True)]

    def answers(self) -> list[Answer]:
        """The best probe against the best prompts, and the best fine-tuned encoder against the best probe, on each test
        set on which both were scored, the last of `tests` first."""
        names = dict(self.table.select("entrant", "name").iter_rows())
        found = []
        for cheaper, costlier in CONTESTS:
            holder, challenger = self.best(cheaper), self.best(costlier)
            for test in reversed(self.tests) if holder and challenger else ():
                gains = self.gains(str(challenger), str(holder), test)
                first, second = f"{WORDS[costlier]} ({names[challenger]})", f"{WORDS[cheaper]} ({names[holder]})"
                found += [Answer(test, first, second, gains)] if gains else []
        return found

    def lines(self) -> list[str]:
        """The answers as sentences, and one on what the intervals cover."""
        said = [sentence(answer) for answer in self.answers()]
        seeds = self.table["seed"].n_unique()
        what = f"the choice of test images and of training images ({seeds} seeds)"
        alone = "the choice of test images alone: --seeds 3 would show that of training images, too"
        return [*said, f"The intervals (95 %) cover {what if seeds > 1 else alone}."] if said else []


def find(table: pl.DataFrame, predictions: pl.DataFrame) -> list[Curve]:
    """The learning curves in a results folder's table and predictions, newest first.

    Studies form one curve if they differ only in the number of training images and scored the same images for equal
    held-out values and seeds. Of two studies of one size, the newer one is taken.
    """
    rows = columns.of_one_design(columns.ordinary(table)).filter(
        (pl.col("class") == "all") & pl.col(SIZE).is_not_null()
    )
    rows = rows.filter(pl.col(SIZE).n_unique().over(SAME_CURVE) > 1)
    if rows.is_empty():
        return []
    # An entrant may occur twice: with two ways of choosing, or fine-tuned again.
    rows = newest(_named(rows), [*STUDY, *TESTED, "entrant"])
    images = columns.ordinary(predictions).join(rows.select(columns.KEY), on=columns.KEY, how="semi", nulls_equal=True)
    tested = _tested(images)
    studies = rows.group_by(STUDY, maintain_order=True).agg(pl.col("created").max())
    found: list[_Found] = []
    for study in studies.sort("created", SIZE, descending=True, maintain_order=True).select(STUDY).iter_rows():
        of_study = dict(zip(STUDY, study, strict=True))
        mine = tested.get(study, {})
        curve = next((one for one in found if one.takes(of_study, mine)), None)
        if curve is None:
            found.append(curve := _Found({name: of_study[name] for name in SAME_CURVE}))
        curve.add(of_study, mine)
    right = _named(images).with_columns(right=(pl.col("label") == pl.col("predicted")).cast(pl.Int64))
    return [_curve(one, rows, right) for one in found if len(one.studies) > 1]


def lines(table: pl.DataFrame, predictions: pl.DataFrame) -> list[str]:
    """The lines of all curves of a table; with several models, each line begins with the model's name."""
    every = find(table, predictions)
    several = len({curve.about["model"] for curve in every}) > 1
    return [f"{curve.about['model']}: {line}" if several else line for curve in every for line in curve.lines()]


@dataclass
class _Found:
    """A curve while its studies are collected: their `STUDY` values by size, and the images of each test set that all
    of them have."""

    about: dict[str, Any]
    studies: dict[int, dict[str, Any]] = field(default_factory=dict)
    tested: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def takes(self, study: dict[str, Any], tested: dict[tuple[Any, ...], int]) -> bool:
        shared = self.tested.keys() & tested.keys()
        same = all(study[name] == value for name, value in self.about.items()) and study[SIZE] not in self.studies
        return same and bool(shared) and all(self.tested[one] == tested[one] for one in shared)

    def add(self, study: dict[str, Any], tested: dict[tuple[Any, ...], int]) -> None:
        self.tested = {one: hashed for one, hashed in tested.items() if one in self.tested or not self.studies}
        self.studies[study[SIZE]] = study


def _tested(images: pl.DataFrame) -> dict[tuple[Any, ...], dict[tuple[Any, ...], int]]:
    """Study -> (held-out value, seed, test set) -> a hash over the scored images."""
    once = images.select(*STUDY, *TESTED, "path", "sha256").unique()
    hashes = once.with_columns(one=pl.concat_str("path", "sha256").hash()).group_by([*STUDY, *TESTED])
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], int]] = {}
    for row in hashes.agg(pl.col("one").sum()).iter_rows():
        found.setdefault(row[: len(STUDY)], {})[row[len(STUDY) : -1]] = row[-1]
    return found


def _named(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the columns `entrant` (equal in all repetitions), `shown` (the encoder's name), `name` and `way`."""
    kinds = rows.select("encoder", "recipe", "head").unique(maintain_order=True)
    words = [(encoder_name(row), way_of(row)) for row in kinds.iter_rows(named=True)]
    told = kinds.hstack(pl.DataFrame(words, schema={"shown": pl.String, "way": pl.String}, orient="row"))
    told = told.with_columns(name=pl.concat_str("shown", "head", separator=" · "))
    named = rows.join(told, on=["encoder", "recipe", "head"], how="left", maintain_order="left")
    return named.with_columns(
        entrant=pl.concat_str("encoder", "recipe", "head", same_each_time(named)["encoder_id"], separator="\x1f")
    )


def _curve(found: _Found, rows: pl.DataFrame, right: pl.DataFrame) -> Curve:
    """The curve of the held-out values that every size has: means over others would not compare."""
    kinds = {name: rows.schema[name] for name in STUDY}
    studies = pl.DataFrame(list(found.studies.values()), schema=kinds)
    of_rows, of_right = (one.join(studies, on=STUDY, how="semi", nulls_equal=True) for one in (rows, right))
    sizes = of_rows.group_by("held_out", "test").agg(sizes=pl.col(SIZE).n_unique())
    shared = sizes.filter(pl.col("sizes") == len(found.studies))
    of_rows, of_right = (one.join(shared, on=["held_out", "test"], how="semi") for one in (of_rows, of_right))
    kept = of_right.select("entrant", SIZE, *TESTED, "path", "right")
    return Curve({**found.about, "studies": list(found.studies.values())}, of_rows, kept)


def _gain(size: int, pairs: pl.DataFrame) -> Gain:
    """The gain of one size, from one row per image and run with its `gain` (-1, 0, 1).

    The interval is `paired.interval`; with several seeds it covers them, too.
    """
    mean = float(pairs["gain"].mean())  # type: ignore[arg-type]
    images = pairs.group_by("path").agg(gain=pl.col("gain").sum(), runs=pl.len().cast(pl.Int64))
    of_seeds = pairs.group_by("seed", maintain_order=True).agg(pl.col("gain").mean())["gain"].to_list()
    return Gain(size, mean, *paired.interval(images["gain"].to_numpy(), images["runs"].to_numpy(), of_seeds))


def sentence(answer: Answer) -> str:
    """A sentence as `Novel: from 4 images a label on, a probe (base CLIP · lda) beats the prompts (…): +3.1 points
    [+0.4, +5.8] at 4, +9.0 [+6.0, +12.0] at 64.`"""
    test, largest = answer.test.capitalize(), answer.gains[-1]
    who, whom = answer.challenger, answer.holder
    if answer.since is not None:
        first = next(gain for gain in answer.gains if gain.size == answer.since)
        on = "already from" if first is answer.gains[0] else "from"
        shown = _figures([first, largest] if first is not largest else [largest])
        return f"{test}: {on} {_images(first.size)} a label on, {who} beats {whom}: {shown}."
    if largest.high < 0:
        return f"{test}: with {_images(largest.size)} a label, {who} loses to {whom}: {_figures([largest])}."
    shown = _figures([largest])
    return (
        f"{test}: with up to {_images(largest.size)} a label, {who} is not significantly better than {whom}: {shown}."
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _figures(gains: Sequence[Gain]) -> str:
    """`+3.1 points [+0.4, +5.8] at 4`, with typographic minus signs."""
    parts = [f"{100 * g.mean:+.1f}{{}} [{100 * g.low:+.1f}, {100 * g.high:+.1f}] at {g.size:,}" for g in gains]
    return ", ".join(part.format("" if number else " points") for number, part in enumerate(parts)).replace("-", "−")
