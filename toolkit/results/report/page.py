"""The page: its parts, put together and written."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.data.held_out import NONE
from toolkit.data.labels import some
from toolkit.errors import ResultsError, SelectionError, did_you_mean
from toolkit.evaluation import columns
from toolkit.results import run_records, tables
from toolkit.results.against import TOLD, Against
from toolkit.results.against import against as since
from toolkit.results.classes import labels_of_row
from toolkit.results.entrants import REPETITION, WAYS, Subject, studies, subject
from toolkit.results.report import again, by_label, charts, cost_chart, encoders, parts, pictures, verdict, words
from toolkit.results.report.parts import Detail
from toolkit.results.report.pictures import Picture
from toolkit.results.report.price import sentence
from toolkit.results.report.templating import templates
from toolkit.results.workbook import LARGE_DROP
from toolkit.storage.records import write_whole

PAGE, PICTURES = "report.html", "pictures"
ONE_OF_A_KIND = "base-against-novel|cost|roc|confusion|leave-one-out"
OURS = rf"({ONE_OF_A_KIND}|(head|label|map)-\d+|(robustness|learning)-[a-z0-9-]+)\.(svg|png)"
"""The names of pictures that a page has, so that those of an earlier page can be removed."""
WHAT = {
    "prompt": "Text prompts alone; nothing is trained.",
    "probe": "A small head is trained on the frozen encoder.",
    "finetune": "The encoder itself is trained further.",
}
SETTINGS = ["held_out", "encoder", "recipe", "head", "choice", "chosen_by", "seed", "train_rows", "leaks_dropped"]
SETTINGS += ["encoder_id", "data_hash", "config_hash", "code_version", "created"]

Frames = tuple[pl.DataFrame, pl.DataFrame]
"""Results and predictions."""


@dataclass(frozen=True)
class Written:
    """What was written: the page and the pictures' files. `headline` and `lead` are the verdict, short and longer;
    `warning` says why not to trust it, or nothing; `study`, of which of several studies in this folder it is;
    `changes`, what changed since earlier results, if any were named."""

    page: Path
    pictures: list[Path]
    headline: str
    lead: str
    warning: str
    study: str
    changes: Against | None = None


@dataclass(frozen=True)
class Scale:
    """The scale of the accuracy bars, from `low` to 1: `at` gives a share's place in percent of the bar's width."""

    low: float

    def at(self, share: float) -> float:
        return round(100 * min(max((share - self.low) / (1 - self.low), 0.0), 1.0), 2)


def write(
    folder: Path,
    cache: Path | None = None,
    data: str | None = None,
    number: int = 1,
    held_out: str | None = None,
    margin: float | None = None,
    against: Path | None = None,
) -> Written:
    """Write `report.html` and `pictures/` for a results folder, from its tables and the cache; no model is loaded.

    `cache` and `data` are where `compare` found them, unless given. Study `number` is shown (1: the newest), its
    details for `held_out` (default: the category that the best head finds hardest). `margin` is the loss of accuracy
    that still counts as good (default: the rows' own). `against` are earlier results, to show what changed since.
    Raises ResultsError where there are no results or nothing is in common with the earlier ones, SelectionError for a
    study or category that is not there.
    """
    table, predictions = tables.read(folder)
    if table.is_empty():
        raise ResultsError(f"{folder} holds no results yet: run python cli.py compare first.")
    table = table if margin is None else table.with_columns(margin=pl.lit(margin))
    shown = subject(table, predictions, number)
    changes = since(shown.predictions, columns.ordinary(tables.read_predictions(against))) if against else None
    reached = verdict.reach(shown)
    noted = run_records.read(folder)
    detail = _detail(shown, reached, noted, held_out)
    context, drawn = _contents(shown, reached, detail, cache, data, (table, predictions))
    context["encoders"] = encoders.side_by_side(table, predictions, shown)
    context["encoders_rule"] = encoders.RULE
    context |= {"changes": changes, "changes_words": TOLD}
    context["others"] = [
        {
            **one,
            "number": n,
            "place": run_records.of(noted, one["last"]).get("data"),
            "labels_named": some(labels_of_row(one["labels"])),
        }
        for n, one in enumerate(studies(table), start=1)
        if n != number
    ]
    html = render(context)
    write_whole(folder / PAGE, html.encode())
    files = _write_pictures(folder / PICTURES, drawn)
    verdict_in_words = {name: context[name] for name in ("headline", "lead", "warning")}
    which = _which(shown, number, len(context["others"]) + 1)
    return Written(folder / PAGE, files, **verdict_in_words, study=which, changes=changes)


def _which(shown: Subject, number: int, count: int) -> str:
    """`This is study 1 of 2 (sample, nano): …`; nothing where there is only one."""
    about = f"{shown.about['dataset']}, {shown.about['model']}"
    return f"This is study {number} of {count} ({about}): report --study N shows another." if count > 1 else ""


def render(context: Mapping[str, Any]) -> str:
    """The HTML of the page. Whatever comes from data is escaped by the template."""
    places, source = templates()
    script, style = source("report.js"), source("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = places.get_template("report.html").render(
        **context, script=script, script_hash=digest, style=pictures.style() + style
    )
    return page.lstrip()


def _contents(
    shown: Subject, reached: verdict.Verdict, detail: Detail, cache: Path | None, data: str | None, every: Frames
) -> tuple[dict[str, Any], list[Picture]]:
    """The template's values, and the pictures among them. `every` are all rows of the results folder."""
    ways, best = list(reached.best.values()), reached.leader
    with pictures.drawing():
        scatter, heat = charts.base_against_novel(shown.entrants), charts.heat_map(shown)
        roc = None if shown.many else charts.roc_of_best(ways, shown, detail.predictions)
        labels = (
            by_label.by_label(shown, best, ways or [best], detail.table, detail.predictions) if shown.many else None
        )
        cards = parts.cards(shown, detail)
        place = cache or Path(detail.noted.get("cache", "cache"))
        mapped = parts.space(shown, detail, place)
        curves = parts.curves(shown)
        learned = parts.learned(shown, every)
        cost = cost_chart.section(shown, reached.contests)
    context = {
        **_opening(shown, reached),
        "about": shown.about,
        "labels": shown.labels,
        "many": shown.many,
        "tests": shown.tests,
        "test_names": words.test_names(shown),
        "test_name": {test: words.test_name(shown, test) for test in shown.tests},
        "entrants": shown.entrants,
        "thresholds": words.has_thresholds(shown),
        "scale": _scale(shown),
        "chance": shown.chance,
        "large_drop": LARGE_DROP,
        "signed": verdict.signed,
        "p_value": words.p_value,
        "points": verdict.points,
        "probability": words.probability,
        "pair": words.pair,
        "scatter": scatter,
        "heat": heat,
        "cost": cost,
        "roc": roc,
        "averages": by_label.averages(shown) if shown.many else [],
        "by_label": labels,
        "cards": cards,
        "detail_words": words.of_detail(shown, detail.held_out, detail.seed),
        "maps": mapped,
        "map_reason": f"The embeddings are not in {place}, so the map cannot be drawn: --cache says where they are.",
        **parts.images(shown, detail, best, data),
        "curves": curves,
        "learned": learned,
        "elsewhere": parts.elsewhere(shown),
        **again.how(shown, detail.table, detail.noted),
        "settings": shown.table.select(SETTINGS).unique(maintain_order=True),
    }
    drawn = [one for one in (scatter, cost["picture"], roc, heat, *mapped, *curves, *learned["pictures"]) if one]
    drawn += [card["picture"] for card in cards]
    drawn += labels.pictures if labels else []
    return context, drawn


def _opening(shown: Subject, reached: verdict.Verdict) -> dict[str, Any]:
    won, best, contests = reached.way, reached.best, reached.contests
    title = WAYS[won] if won else "Undecided" if best else "Nothing to choose between"
    ways = [
        {
            "key": key,
            "title": title,
            "what": WHAT[key],
            "entrant": best.get(key),
            "won": key == won,
            "tried": key in shown.tried,
        }
        for key, title in WAYS.items()
    ]
    return {
        "title": f"{title}: {shown.about['dataset']}",
        "headline": f"{title}.",
        "lead": _lead(shown, reached),
        "warning": words.warning(shown, reached.leader if best else None),
        "facts": words.facts(shown),
        "ways": ways,
        "new_labels": shown.new_labels,
        "compared": words.compared(shown),
        "contests": contests,
        "rule": verdict.RULE,
        "p_words": words.p_words(shown, max((one.values for of in contests for one in of.duels.values()), default=0)),
        "table_note": words.of_table(shown),
        "average_headings": by_label.headings(shown) if shown.many else {},
        "averages_note": words.of_averages(shown),
        "bars": words.bars(shown),
    }


def _lead(shown: Subject, reached: verdict.Verdict) -> str:
    """The verdict and, of an answer, the price of the most expensive way against the best cheaper one."""
    if not reached.way:
        return reached.sentence
    return " ".join([reached.sentence, *[sentence(shown, one, figures=False) for one in reached.contests[-1:]]]).strip()


def _detail(shown: Subject, reached: verdict.Verdict, noted: Mapping[str, Any], held_out: str | None) -> Detail:
    """The run with `held_out` held out and the lowest seed; by default the one where the best entrant is least
    accurate."""
    categories = shown.held_out or [NONE]
    if held_out is not None and held_out not in categories:
        guess = did_you_mean(held_out, categories)
        raise SelectionError(f"{held_out!r} was not held out.{guess} --held-out takes {', '.join(categories)}.")
    mine = shown.table.filter((pl.col("entrant") == reached.leader.key) & (pl.col("test") == shown.decides))
    runs = (
        mine.sort("accuracy", *REPETITION) if held_out is None else shown.table.filter(held_out=held_out).sort("seed")
    )
    wanted, seed = runs.select(REPETITION).row(0)
    table, predictions = (
        frame.filter((pl.col("held_out") == wanted) & (pl.col("seed") == seed))
        for frame in (shown.table, shown.predictions)
    )
    return Detail(wanted, seed, table, predictions, run_records.of(noted, table.row(0, named=True)))


def _scale(shown: Subject) -> Scale:
    lowest = min(score.low for entrant in shown.entrants for score in entrant.scores.values())
    return Scale(min(0.4, int(lowest * 10) / 10))


def _write_pictures(folder: Path, drawn: Sequence[Picture]) -> list[Path]:
    """Write the pictures, and remove those that only an earlier page had; files of other names stay."""
    files = {}
    for one in drawn:
        files[folder / f"{one.name}.svg"], files[folder / f"{one.name}.png"] = one.svg, one.png
    for path, data in files.items():
        write_whole(path, data)
    for old in folder.iterdir() if folder.is_dir() else ():
        if old not in files and re.fullmatch(OURS, old.name):
            old.unlink()
    return list(files)
