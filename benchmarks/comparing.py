"""`comparing`: the whole grid at CIFAKE's full size, each category held out in turn, against plain scikit-learn."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl

from benchmarks.turns import Goal, Timing, processor_seconds, report, rounds_and_json
from toolkit.cache.measured import Measured
from toolkit.data.labels import Labels
from toolkit.encoders.record import EncoderRecord, TrainedOn
from toolkit.heads.knn import MOST_QUERIES

CATEGORIES = 10
COLUMNS = 512


@click.command()
@click.option("--train", default=100_000, show_default=True, help="Training vectors.")
@click.option("--test", default=20_000, show_default=True, help="Test vectors.")
@click.option("--part", default=1000, show_default=True, help="So many queries of the plain k-NN are run, not all.")
@click.option("--held-out", default=CATEGORIES, show_default=True, help="Run so many; the others count as the last.")
@click.option("--labels", default=2, show_default=True, help="More than two: measured against two, without plain loop.")
@rounds_and_json
def comparing(train: int, test: int, part: int, held_out: int, labels: int, rounds: int, out: Path | None) -> None:
    """Three heads, base and fine-tuned, ten held-out categories. Goal: 20 times as fast, with the same predictions.

    The plain loop would take hours. So of its calls one fold's logistic regressions at each C, one final one, and some
    of the queries of k-NN are run, and multiplied by how often the whole loop makes them. It draws as many queries as
    the toolkit to choose k, and looks for their neighbours once, or for each k and weighting anew as GridSearchCV does.
    """
    timings: dict[str, Timing] = {}
    for _ in range(rounds):
        for number in sorted({2, labels}):
            rows, base, found = run(train, test, number, held_out, timings)
    if labels > 2:
        ratios = [Goal(f"{labels} labels / 2, {clock}", _ratio(timings, clock), at_most=3.0) for clock in CLOCKS]
        report(f"compare --split all, {train:,} + {test:,} vectors", timings, ratios, 2 * CATEGORIES, out)
        return
    plain, agreement = plain_loop(rows, base, found[0], part)
    timings |= {one.way: one for one in plain}
    goals = [
        Goal(f"{one.way.partition(',')[0]} / toolkit, {clock}", _ratio(timings, clock, one.way), at_least=20.0)
        for one in plain
        for clock in CLOCKS
    ]
    report(f"compare --split all, {train:,} + {test:,} vectors", timings, goals + agreement, 2 * CATEGORIES, out)


CLOCKS = ("wall", "cpu")


def _ratio(timings: dict[str, Timing], clock: str, way: str = "") -> float:
    """The seconds of `way`, or of the last one, to those of the first one."""
    ways = list(timings)
    return timings[way or ways[-1]].median(clock) / timings[ways[0]].median(clock)


def run(train: int, test: int, labels: int, held_out: int, timings: dict[str, Timing]) -> tuple[Any, Any, Any]:
    """One round of the toolkit, added to `timings` -> rows, base vectors, and the comparisons by held-out category."""
    rows, base = generated(train, test, labels)
    tuned = {category: fine_tuned(base, rows, category) for category in range(held_out)}
    each, whole = Timing(""), timings.setdefault(f"toolkit, {labels} labels", Timing(f"toolkit, {labels} labels"))
    found = everything(rows, base, tuned, each)
    for clock in CLOCKS:
        seconds = getattr(each, clock)
        getattr(whole, clock).append(sum(seconds) + (CATEGORIES - held_out) * seconds[-1])
    return rows, base, found


def generated(train: int, test: int, labels: int = 2) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows of CIFAKE's kind, and vectors `[N, 512]` in clusters whose labels lie apart in each category's own way."""
    rng = np.random.default_rng(0)
    count = train + test
    category, number = rng.integers(0, CATEGORIES, count), labels - 1 - (rng.random(count) * labels).astype(int)
    spread = rng.standard_normal((COLUMNS, COLUMNS)) * np.geomspace(1, 0.05, COLUMNS)[:, None] / np.sqrt(COLUMNS)
    vectors = (rng.standard_normal((count, COLUMNS)) @ spread * 1.5 + 1).astype(np.float32)
    vectors += 0.8 * rng.standard_normal((CATEGORIES, COLUMNS)).astype(np.float32)[category]
    sides = _sides(labels)[number]
    for side, shared in zip(sides.T, rng.standard_normal((labels - 1, COLUMNS)), strict=True):
        apart = shared + rng.standard_normal((CATEGORIES, COLUMNS))
        vectors += (0.04 * side[:, None] * apart[category]).astype(np.float32)
    number = (number + (rng.random(count) < 0.05)) % labels  # no encoder tells every image
    text = np.arange(count).astype(str)
    columns = {
        "path": text,
        "label": np.array(_names(labels))[number],
        "category": np.char.add("c", category.astype(str)),
    }
    rows = pl.DataFrame({**columns, "split": np.where(np.arange(count) < train, "train", "test"), "sha256": text})
    return rows, vectors


def _names(labels: int) -> list[str]:
    return ["FAKE", "REAL"] if labels == 2 else [f"label {number:03}" for number in range(labels)]


def _sides(labels: int) -> np.ndarray:
    """`[labels, labels - 1]`: on which side of each direction a label lies."""
    return np.vstack([-np.ones(labels - 1), 2 * np.eye(labels - 1) - 1])


def fine_tuned(base: np.ndarray, rows: pl.DataFrame, category: int) -> np.ndarray:
    """Vectors of an encoder that never saw `category`: its labels lie further apart everywhere else."""
    rng = np.random.default_rng([1, category])
    names, number = np.unique(rows["label"].to_numpy(), return_inverse=True)
    far = np.where((rows["category"] != f"c{category}").to_numpy(), 0.15, 0.08)[:, None]
    moved = far * (_sides(len(names))[number] @ rng.standard_normal((len(names) - 1, COLUMNS)))
    return (base + moved + 0.1 * rng.standard_normal((len(rows), COLUMNS))).astype(np.float32)


class InMemory:
    """Stands for a cache: vectors by row number."""

    def __init__(self, vectors: np.ndarray, record: EncoderRecord):
        self.vectors, self.record = vectors, record
        self.folder = Path("in memory")

    def read_images(self, keys: list[str]) -> np.ndarray:
        """`[N, 512]`."""
        return self.vectors[np.array(keys, dtype=np.int64)]

    def measured(self, kind: str = "images") -> Measured:  # noqa: ARG002
        """Nothing was embedded."""
        return Measured(None, None, ())

    def read_prompts(self, prompts: list[str]) -> np.ndarray:
        """Vectors that are as good as any."""
        return self.vectors[[len(prompt) for prompt in prompts]]


def everything(rows: pl.DataFrame, base: np.ndarray, tuned: dict[int, np.ndarray], each: Timing) -> dict[int, Any]:
    """The comparison of each held-out category, as `compare --split all` makes it, and how long each takes."""
    from toolkit.data.split import Split
    from toolkit.evaluation.grid import Settings
    from toolkit.pipeline.compare import compare_split

    about = EncoderRecord("base", "made", "none", COLUMNS)
    prompts = {name: ["x" * place] for place, name in enumerate(sorted(rows["label"].unique()))}
    settings = Settings("made", Labels.of([*prompts]), prompts, train_per_label=None, test_per_label=None)
    shared, found = InMemory(base, about), {}
    for number, vectors in tuned.items():
        held_out = f"c{number}"
        rows = rows.with_columns(group="category")
        train = rows.filter((pl.col("split") == "train") & (pl.col("category") != held_out))
        tests = rows.filter(pl.col("split") == "test")
        novel = pl.col("category") == held_out
        selection = Split(held_out, train, tests.filter(~novel), tests.filter(novel), 0)
        groups = tuple(sorted(train["category"].unique()))
        saw = TrainedOn("base", "none", "made", {}, 0, held_out, groups, selection.train_sha256(), len(train))
        record = replace(about, identity=f"tuned{number}", trained_on=saw)
        wall, cpu = time.perf_counter(), processor_seconds()
        found[number] = compare_split(selection, [shared, InMemory(vectors, record)], settings)  # type: ignore[list-item]
        each.wall.append(time.perf_counter() - wall)
        each.cpu.append(processor_seconds() - cpu)
        click.echo(f"  without {held_out}: {each.wall[-1]:.1f} s, {each.cpu[-1]:.1f} processor s", err=True)
    return found


def plain_loop(rows: pl.DataFrame, base: np.ndarray, ours: Any, part: int) -> tuple[list[Timing], list[Goal]]:
    """The seconds of the whole plain loop, and how well the toolkit's predictions for the first category agree."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    from toolkit.heads.base import unit
    from toolkit.heads.logreg import GRID

    X, y, categories = unit(base), rows["label"].to_numpy(), rows["category"].to_numpy()
    train = ((rows["split"] == "train") & (rows["category"] != "c0")).to_numpy()
    tests = np.concatenate([ours_rows(ours, test) for test in ("base", "novel")])
    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}

    def timed(name: str, times: float, call: Any) -> Any:
        begun, spent = time.perf_counter(), processor_seconds()
        result = call()
        wall[name] = wall.get(name, 0) + times * (time.perf_counter() - begun)
        cpu[name] = cpu.get(name, 0) + times * (processor_seconds() - spent)
        return result

    problems, fold = 2 * CATEGORIES, train & (categories != "c1")
    for strength in GRID:
        model = LogisticRegression(C=strength, max_iter=5000)
        timed("choose C", problems * (CATEGORIES - 1), lambda model=model: model.fit(X[fold], y[fold]))
    head = ours.heads["base", "logreg"]
    exact = LogisticRegression(C=head.choice_["C"], max_iter=5000, solver="newton-cholesky", tol=1e-8)
    wide = X.astype(np.float64)
    timed("fit", problems, lambda: exact.fit(wide[train], y[train]))
    odds = exact.predict_proba(wide[tests])[:, 1]
    neighbours = ours.heads["base", "knn"]
    plain = KNeighborsClassifier(neighbours.k_, metric="cosine", algorithm="brute").fit(X[train], y[train])
    some = np.sort(np.random.default_rng(0).choice(len(tests), min(part, len(tests)), replace=False))
    cosines, nearest = timed("k-NN", problems / len(some), lambda: plain.kneighbors(X[tests[some]]))
    found = [
        _sum("plain, neighbours once for all k", wall, cpu, MOST_QUERIES + len(tests)),
        _sum("plain, neighbours for each k as in GridSearchCV", wall, cpu, 16 * MOST_QUERIES + len(tests)),
    ]
    scores = head.predict_proba(base[tests])[:, 1]
    votes = neighbours._shares(1 - cosines, nearest, neighbours.weighting_)
    same = (votes.argmax(axis=1) == neighbours.predict_proba(base[tests[some]]).argmax(axis=1)).mean()
    agreement = [
        Goal("greatest difference of P, logreg", float(np.abs(scores - odds).max()), at_most=1e-3),
        Goal("equal predictions, k-NN", float(same), at_least=0.999),
    ]
    return found, agreement


def _sum(way: str, wall: dict[str, float], cpu: dict[str, float], queries: int) -> Timing:
    """The whole loop, where each comparison asks k-NN for the neighbours of so many queries."""
    sums = [clock["choose C"] + clock["fit"] + queries * clock["k-NN"] for clock in (wall, cpu)]
    click.echo(f"  {way}: " + ", ".join(f"{name} {seconds:.3g} s" for name, seconds in wall.items()), err=True)
    return Timing(way, [sums[0]], [sums[1]])


def ours_rows(ours: Any, test: str) -> np.ndarray:
    """The row numbers of a test set."""
    mine = ours.predictions.filter((pl.col("test") == test) & (pl.col("head") == "knn") & (pl.col("encoder") == "base"))
    return np.asarray(mine["path"].to_numpy().astype(np.int64))
