"""The subject of the page: one study of a results folder, and the encoder-head pairs (entrants) compared in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from toolkit.data.held_out import LABEL, NONE
from toolkit.encoders.record import Sees
from toolkit.errors import SelectionError
from toolkit.evaluation import columns
from toolkit.evaluation.intervals import Interval, of_mean, wilson
from toolkit.heads import HEADS, head_class
from toolkit.results.costs import Cost, cost_of
from toolkit.results.published import study_figure, with_recipe
from toolkit.results.summary import in_plural, labels_of, margin_of, newest, same_each_time, standing

STUDY = [*columns.QUESTION, "study"]
"""Rows that share these are one study: its held-out values and its seeds are repetitions of one question."""

SEPARATOR = "\x1f"
REPETITION = ["held_out", "seed"]
LEAST_VALUES = 6
"""From so many held-out values on, novel images are judged by the value: sign flips can then tell a difference at all,
as their least p is 2 / 2**6."""

WAYS = {"prompt": "Prompt", "probe": "Probe", "finetune": "Fine-tune"}
"""The ways to use CLIP, from the cheapest to the most expensive."""
NAMES = {"prompt": "the prompts", "probe": "the probe", "finetune": "fine-tuning"}

REFERENCES = {Sees.PIXELS: "a small network on the pixels", Sees.FILE_FACTS: "a head that sees facts of the file alone"}
"""Encoders that do without CLIP: they are compared, but are never the answer."""


@dataclass(frozen=True)
class Score:
    """Accuracy on one test set: of one run with its 95 % interval, of several the mean with the worst and best run.

    `at_threshold` is the mean accuracy at the thresholds that left-out training images chose.
    """

    mean: float
    low: float
    high: float
    runs: int
    auc: float | None
    standing: str
    study: float | None
    at_threshold: float | None = None


@dataclass(frozen=True)
class Entrant:
    """An encoder with a head. `way` is one of `WAYS`, or `reference`. `scores` has that on `base` and on `novel`,
    `cost` the means over its repetitions."""

    key: str
    encoder: str
    head: str
    way: str
    scores: dict[str, Score]
    cost: Cost | None = None

    @property
    def name(self) -> str:
        return f"{self.encoder} · {self.head}"

    @property
    def seconds(self) -> float | None:
        """How long it takes until it can answer; None where that was not measured."""
        return self.cost.until_answer if self.cost else None

    @property
    def drop(self) -> float | None:
        """Base minus novel accuracy."""
        both = [self.scores.get(test) for test in ("base", "novel")]
        return both[0].mean - both[1].mean if both[0] and both[1] else None


@dataclass(frozen=True)
class Subject:
    """One study. `table` and `predictions` are its rows on the data's own test images, with a column `entrant`;
    `changed` are its rows on perturbed images and on other data. `labels` are in their order, `tried` are the ways that
    any of its rows uses, also where `columns.of_one_design` leaves them out."""

    about: dict[str, Any]
    table: pl.DataFrame
    predictions: pl.DataFrame
    changed: pl.DataFrame
    labels: list[str]
    entrants: list[Entrant] = field(default_factory=list)
    tried: frozenset[str] = frozenset()

    @property
    def many(self) -> bool:
        """Whether there are more than two labels."""
        return len(self.labels) > 2

    @property
    def new_labels(self) -> list[str]:
        """The labels that were held out, where `--split-by label` holds labels out; they are the novel ones."""
        return self.labels_on("novel") if self.kind == LABEL else []

    def labels_on(self, test: str) -> list[str]:
        """The labels that a test set is about, in the order of `probabilities`: all, unless labels are held out."""
        return labels_of(self.table.filter(pl.col("test") == test))

    @property
    def tests(self) -> list[str]:
        """`base`, and `novel` where a category was held out."""
        return [test for test in ("base", "novel") if test in self.table["test"]]

    @property
    def references(self) -> list[Entrant]:
        """The entrants that do without CLIP."""
        return [entrant for entrant in self.entrants if entrant.way == "reference"]

    @property
    def decides(self) -> str:
        """The test set that decides: novel, where there is one."""
        return self.tests[-1]

    @property
    def chance(self) -> float:
        """The accuracy of always answering the most frequent label, on the deciding test set."""
        return self.chance_on(self.decides)

    def chance_on(self, test: str) -> float:
        """The same on another test set."""
        images = self.predictions.filter(pl.col("test") == test).unique("path")
        return max(images["label"].value_counts()["count"].to_list()) / len(images)

    def images(self, test: str) -> int:
        """The number of different images in a test set."""
        return self.predictions.filter(pl.col("test") == test)["path"].n_unique()

    def interval(self, entrant: Entrant, test: str) -> Interval:
        """The 95 % interval of an entrant's mean: Wilson's, where an image that several runs scored counts once; on
        novel images of `LEAST_VALUES` held-out values or more Student's t over the values."""
        if test == "novel":
            mine = (pl.col("entrant") == entrant.key) & (pl.col("test") == test) & (pl.col("class") == "all")
            values = self.table.filter(mine).group_by("held_out").agg(pl.col("accuracy").mean())["accuracy"].to_numpy()
            if len(values) >= LEAST_VALUES:
                low, high = of_mean(values)
                return max(low, 0.0), min(high, 1.0)
        images = self.images(test)
        return wilson(entrant.scores[test].mean * images, images)

    @property
    def held_out(self) -> list[str]:
        """The categories that were held out, each in its turn; none where nothing was."""
        return sorted(set(self.table["held_out"]) - {NONE})

    @property
    def kind(self) -> str:
        """What was held out: a category, or a value of another column of the data."""
        return str(self.about["split_by"])

    @property
    def kinds(self) -> str:
        """The same in the plural."""
        return in_plural(self.kind)

    @property
    def margin(self) -> float:
        """By how much accuracy may be lower and still count as good."""
        return margin_of(self.table.row(0, named=True))

    @property
    def seeds(self) -> list[int]:
        return sorted(self.table["seed"].unique().to_list())

    def ranked(self, ways: Sequence[str] = tuple(WAYS)) -> list[Entrant]:
        """The entrants of these ways, the most accurate one on the deciding test set first.

        Those that lack runs which others have are left out: means over other runs do not compare.
        """
        test, runs = self.decides, _most_runs(self.entrants)
        scored = [one for one in self.entrants if one.way in ways and test in one.scores]
        whole = [one for one in scored if one.scores[test].runs >= runs.get(test, 0)]
        return sorted(whole, key=lambda entrant: -entrant.scores[test].mean)


def studies(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The studies in a results table, the newest first, and of those made together the one that trained on most.

    Of each its `STUDY` values, when it was last `created`, and the `columns.COMPARISON` of the `last` one.
    """
    last = pl.struct(columns.COMPARISON).sort_by("created").last().alias("last")
    return (
        table.group_by(STUDY, maintain_order=True)
        .agg(pl.col("created").max(), pl.col("held_out").unique(maintain_order=True), last)
        .sort("created", "train_per_label", descending=True, nulls_last=False, maintain_order=True)
        .to_dicts()
    )


def subject(table: pl.DataFrame, predictions: pl.DataFrame, number: int = 1) -> Subject:
    """The study `number` (1 is the newest). Raises SelectionError where there are not so many."""
    found = studies(table)
    if not 1 <= number <= len(found):
        raise SelectionError(f"There is no study {number}: --study takes 1 (the newest) to {len(found)}.")
    about = found[number - 1]
    every = with_entrants(columns.unadapted(_of(table, about)))
    rows = columns.of_one_design(every)
    plain = newest(columns.ordinary(rows), ["entrant", *REPETITION, "test", "class"])
    kept = plain.select(columns.KEY).unique()
    images = with_entrants(_of(predictions, about)).join(kept, on=columns.KEY, how="semi", nulls_equal=True)
    changed = rows.join(columns.ordinary(rows), on=columns.KEY, how="anti", nulls_equal=True)
    changed = newest(changed, ["entrant", *REPETITION, *columns.TEST, "class"])
    kinds = columns.ordinary(every).select("encoder", "recipe", "head").unique().iter_rows(named=True)
    tried = frozenset(map(way_of, kinds))
    return Subject(about, plain, images, changed, labels_of(plain), _entrants(plain), tried)


def with_entrants(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with a column `entrant`, the same in all repetitions, though each fine-tunes an encoder of its own.

    How a head chose is part of it only where one comparison has both ways: else repetitions differ in it, where one had
    too few images to leave categories out.
    """
    kind = ["encoder", "recipe", "head"]
    ways = pl.col("chosen_by").n_unique().over([*columns.COMPARISON, *kind, "encoder_id", *columns.TEST])
    chosen_by = pl.when(ways.max().over(kind) > 1).then("chosen_by").otherwise(pl.lit(""))
    parts: list[pl.Expr | pl.Series] = [*map(pl.col, kind), chosen_by, same_each_time(table)["encoder_id"]]
    return table.with_columns(entrant=pl.concat_str(parts, separator=SEPARATOR))


def encoder_name(row: dict[str, Any]) -> str:
    """The encoder of a row, as the page names it."""
    names = {"base": "base CLIP", "finetuned": "fine-tuned CLIP"}
    return with_recipe(names.get(row["encoder"], row["encoder"]), row["recipe"])


def way_of(row: dict[str, Any]) -> str:
    """The way that a row uses CLIP: a key of `WAYS`, or `reference`."""
    if row["encoder"] in REFERENCES:
        return "reference"
    if row["recipe"]:
        return "finetune"
    return "prompt" if row["head"] in HEADS and not head_class(row["head"]).learns else "probe"


def _of(table: pl.DataFrame, about: dict[str, Any]) -> pl.DataFrame:
    return table.filter(pl.all_horizontal(pl.col(name).eq_missing(pl.lit(about[name])) for name in STUDY))


def _most_runs(entrants: Sequence[Entrant]) -> dict[str, int]:
    """Test set -> the most runs that any entrant has on it; references count only where there is nothing else."""
    every = [one for one in entrants if one.way in WAYS] or entrants
    runs = [(test, score.runs) for entrant in every for test, score in entrant.scores.items()]
    return {test: max(count for of, count in runs if of == test) for test, _ in runs}


def _entrants(table: pl.DataFrame) -> list[Entrant]:
    found = []
    for (key,), group in table.filter(pl.col("class") == "all").group_by("entrant", maintain_order=True):
        first = group.row(0, named=True)
        scores = {test: _score(rows) for (test,), rows in group.group_by("test", maintain_order=True)}
        cost = cost_of(group.filter(pl.col("test") == first["test"]))
        found.append(Entrant(str(key), encoder_name(first), first["head"], way_of(first), scores, cost))
    marked = _with_their_runs(_with_distinct_names(found))
    return sorted(marked, key=lambda entrant: entrant.way == "reference")


def _with_their_runs(entrants: list[Entrant]) -> list[Entrant]:
    """The entrants; those that have fewer runs than others say so, and have no standing."""
    most, marked = _most_runs(entrants), []
    for one in entrants:
        lacking = next((test for test, score in one.scores.items() if score.runs < most.get(test, 0)), None)
        if lacking:
            scores = {test: _among_several(score, most.get(test, 0)) for test, score in one.scores.items()}
            head = f"{one.head} ({one.scores[lacking].runs} of {most[lacking]} runs)"
            one = replace(one, head=head, scores=scores)
        marked.append(one)
    return marked


def _among_several(score: Score, most: int) -> Score:
    """A score of fewer runs than others have, without standing; of a single one the worst and best run are the same."""
    if score.runs == 1 < most:
        return replace(score, standing="", low=score.mean, high=score.mean)
    return replace(score, standing="")


def _with_distinct_names(entrants: list[Entrant]) -> list[Entrant]:
    """Entrants with distinct names: equal ones get how they chose, or their encoder's identity, in brackets."""
    names = [entrant.name for entrant in entrants]
    apart = []
    for entrant in entrants:
        twins = [other.key.split(SEPARATOR) for other in entrants if other.name == entrant.name]
        *_, chosen_by, identity = entrant.key.split(SEPARATOR)
        more = [chosen_by] if len({twin[3] for twin in twins}) > 1 else []
        more += [identity[:6]] if len({twin[4] for twin in twins}) > 1 else []
        head = f"{entrant.head} ({', '.join(more)})" if names.count(entrant.name) > 1 and any(more) else entrant.head
        apart.append(replace(entrant, head=head))
    return apart


def _score(rows: pl.DataFrame) -> Score:
    """From the `all` rows of one entrant on one test set, one for each repetition."""
    first, accuracy, auc = rows.row(0, named=True), rows["accuracy"], rows["roc_auc"].drop_nans().mean()
    single = len(rows) == 1
    study = study_figure(first, first["test"], "accuracy") if rows["held_out"].n_unique() == 1 else None
    return Score(
        float(accuracy.mean()),  # type: ignore[arg-type]
        first["accuracy_low"] if single else float(accuracy.min()),  # type: ignore[arg-type]
        first["accuracy_high"] if single else float(accuracy.max()),  # type: ignore[arg-type]
        len(rows),
        None if auc is None else float(auc),  # type: ignore[arg-type]
        standing(first) if single else "",
        study,
        rows[columns.AT_THRESHOLD].mean(),  # type: ignore[arg-type]
    )
