"""Parts of the page: of one run the cards, maps and thumbnails; of other images the curves and their table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.errors import DataError, ToolkitError
from toolkit.results import classes, learning
from toolkit.results.entrants import REPETITION, STUDY, WAYS, Entrant, Score, Subject
from toolkit.results.report import by_label, charts, label_charts, maps, thumbnails, words
from toolkit.results.report.pictures import OF_LABELS, Picture

MOST_CARDS = 12
MILDER_ABOVE = ("jpeg", "resize")


@dataclass(frozen=True)
class Detail:
    """The one run (held-out value and seed) that curves, confusion matrices, maps and thumbnails show."""

    held_out: str
    seed: int
    table: pl.DataFrame
    predictions: pl.DataFrame
    noted: Mapping[str, Any]


def cards(shown: Subject, detail: Detail) -> list[dict[str, Any]]:
    """A card for each entrant, in the order of the table; at most the `MOST_CARDS` most accurate ones."""
    there = set(detail.predictions["entrant"])
    best = {entrant.key for entrant in shown.ranked([*WAYS, "reference"])[:MOST_CARDS]}
    chosen = [entrant for entrant in shown.entrants if entrant.key in there & best]
    return [_card(shown, detail, entrant, number) for number, entrant in enumerate(chosen, start=1)]


def _card(shown: Subject, detail: Detail, entrant: Entrant, number: int) -> dict[str, Any]:
    confusions, notes = [], []
    for test in entrant.scores:
        matrix = classes.counts(charts.of_entrant(detail.predictions, entrant, test), shown.labels)
        if not shown.many:
            confusions.append({"test": words.test_name(shown, test), "counts": matrix.tolist()})
        mine = (pl.col("entrant") == entrant.key) & (pl.col("test") == test) & (pl.col("class") == "all")
        figures = detail.table.row(by_predicate=mine, named=True)
        notes.append(words.of_card(shown, test, figures, classes.worst_pairs(matrix, shown.labels, 1)))
    draw = label_charts.recalls_and_calibration if shown.many else charts.roc_and_calibration
    drawn = draw(entrant, shown, detail.predictions, number)
    return {"entrant": entrant, "picture": drawn, "confusions": confusions, "note": "; ".join(notes) + "."}


def space(shown: Subject, detail: Detail, cache: Path) -> list[Picture]:
    """Maps of the same images before and after fine-tuning, of those encoders whose vectors the cache still has."""
    encoders = detail.table.filter(pl.col("recipe").is_in(["", _recipe(shown, detail)])).unique(
        "recipe", maintain_order=True
    )
    coloured = _coloured(shown, detail) if shown.many else []
    images = maps.few(detail.predictions, coloured)
    found: list[Picture] = []
    for row in encoders.iter_rows(named=True):
        points = maps.flatten(cache, row["encoder_id"], images)
        if points is not None:
            title = "before fine-tuning" if row["recipe"] == "" else f"after fine-tuning ({row['recipe']})"
            name = f"map-{len(found) + 1}"
            if shown.many:
                found.append(maps.map_of_many(points, coloured, name, title))
            else:
                found.append(maps.embedding_map(points, shown.labels, detail.held_out, name, title))
    return found


def _coloured(shown: Subject, detail: Detail) -> list[str]:
    """The labels that have a colour on the map: all, or those that the best entrant recognises worst."""
    if len(shown.labels) <= len(OF_LABELS):
        return shown.labels
    best = next(iter(shown.ranked()), shown.entrants[0])
    return by_label.worst_labels(shown, best, detail.table)["class"].head(len(OF_LABELS)).to_list()


def _recipe(shown: Subject, detail: Detail) -> str:
    """The recipe of the best fine-tuned entrant of this run."""
    there = {key: recipe for key, recipe in detail.table.select("entrant", "recipe").iter_rows()}
    return next((there[one.key] for one in shown.ranked(["finetune"]) if one.key in there), "")


def images(shown: Subject, detail: Detail, best: Entrant, data: str | None) -> dict[str, Any]:
    rows = detail.predictions.filter((pl.col("entrant") == best.key) & (pl.col("test") == shown.decides))
    novel = shown.decides == "novel"
    said = words.of_images(shown, best, detail.held_out)
    try:
        read = _reader(data or detail.noted.get("data"), detail.noted.get("reading") or {}, detail.noted.get("cache"))
        found = thumbnails.rows(rows, shown.labels, read)
    except ToolkitError as error:
        found, said = [], f"The images cannot be shown: {error} --data PATH says where they are now."
    return {"thumbnails": found, "pictures_title": "Surest mistakes and hits", "pictures_words": said, "novel": novel}


def _reader(data: str | None, reading: Mapping[str, Any], cache: str | None) -> Callable[[str], bytes]:
    from toolkit.data.sources import Reading, open_data

    if not data:
        raise DataError("where they are was not noted.")
    there = Path(cache) if cache and Path(cache).is_dir() else None  # a page makes no cache
    return open_data(data, cache=there, asked=Reading(**reading)).read


def curves(shown: Subject) -> list[Picture]:
    """A chart for each kind of perturbation and test set: `jpeg:75` and `jpeg:50` are two strengths of one kind."""
    changed = shown.changed.filter((pl.col("class") == "all") & (pl.col("perturbation") != ""))
    parts = pl.col("perturbation").str.split_exact(":", 1).struct
    changed = changed.with_columns(kind=parts.field("field_0"), strength=parts.field("field_1").fill_null(""))
    lowest = min(changed["accuracy"].to_list(), default=1.0)
    found: list[Picture] = []
    for (kind, test), rows in changed.sort("kind", "test").group_by("kind", "test", maintain_order=True):
        strengths = _by_harm(str(kind), rows["strength"].unique(maintain_order=True).to_list())
        there = set(rows["entrant"])
        plain = shown.table.filter((pl.col("class") == "all") & (pl.col("test") == test))
        lines = [
            (entrant, _means(plain, rows, entrant.key, strengths))
            for entrant in shown.entrants
            if test in entrant.scores and entrant.key in there
        ]
        if lines:
            found.append(charts.robustness(str(kind), strengths, lines, str(test), min(lowest, 0.45) - 0.02))
    return found


def _by_harm(kind: str, strengths: list[str]) -> list[str]:
    """Strengths from the mildest on: for JPEG quality and resizing the largest number, else the smallest."""

    def number(strength: str) -> float:
        try:
            return float(strength)
        except ValueError:
            return 0.0

    return sorted(strengths, key=number, reverse=kind in MILDER_ABOVE)


def _means(plain: pl.DataFrame, rows: pl.DataFrame, key: str, strengths: list[str]) -> list[float]:
    """An entrant's mean accuracy on unchanged images, then at each strength, over the runs that have all of them."""
    unchanged = plain.with_columns(strength=pl.lit("none"))
    every = pl.concat([one.select("entrant", *REPETITION, "strength", "accuracy") for one in (unchanged, rows)])
    mine = every.filter(pl.col("entrant") == key)
    whole = mine.filter(pl.col("strength").n_unique().over(REPETITION) == mine["strength"].n_unique())
    means = dict(whole.group_by("strength").agg(pl.col("accuracy").mean()).iter_rows())
    return [means.get(strength, float("nan")) for strength in ("none", *strengths)]


def learned(shown: Subject, every: tuple[pl.DataFrame, pl.DataFrame]) -> dict[str, Any]:
    """The learning curves that the study is part of, if any, and what they say. `every` are all results and
    predictions."""
    mine = {name: shown.about[name] for name in STUDY}
    curve = next((one for one in learning.find(*every) if mine in one.about["studies"]), None)
    if curve is None:
        return {"pictures": [], "lines": []}
    return {"pictures": [charts.learning_curves(curve, test) for test in curve.tests], "lines": curve.lines()}


def elsewhere(shown: Subject) -> list[dict[str, Any]]:
    """One row for each other data set and entrant: of one run with its interval, of several the mean and range."""
    rows = shown.changed.filter(
        (pl.col("class") == "all") & (pl.col("test_data") != "") & (pl.col("perturbation") == "")
    )
    named = {entrant.key: entrant for entrant in shown.entrants}
    found = []
    for (data, key), group in rows.group_by("test_data", "entrant", maintain_order=True):
        first = group.row(0, named=True)
        ends = ("accuracy_low", "accuracy_high") if len(group) == 1 else ("accuracy", "accuracy")
        low, high = float(group[ends[0]].min()), float(group[ends[1]].max())  # type: ignore[arg-type]
        accuracy, auc = float(group["accuracy"].mean()), group["roc_auc"].drop_nans().mean()  # type: ignore[arg-type]
        score = Score(accuracy, low, high, len(group), auc, "", None)  # type: ignore[arg-type]
        if key in named:
            found.append({"data": data, "entrant": named[str(key)], "images": first["support"], "score": score})
    return found
