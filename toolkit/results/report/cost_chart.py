"""Accuracy against cost: the chart with its frontier, and the table and words beside it."""

import re
from collections.abc import Sequence
from typing import Any

from toolkit.results.costs import duration
from toolkit.results.entrants import Entrant, Subject
from toolkit.results.report import charts, price, words
from toolkit.results.report.pictures import Picture, colour, picture
from toolkit.results.report.verdict import Contest

LEAST = 1e-3
"""Seconds where the axis begins: less than that is nothing, and a logarithm has no zero."""


def section(shown: Subject, contests: Sequence[Contest]) -> dict[str, Any]:
    """The template's values: the picture (None if no cost is known), the entrants by cost, and sentences."""
    entrants = price.priced(shown)
    if not entrants:
        return {"picture": None}
    best = price.frontier(entrants, shown.decides)
    return {
        "picture": chart(entrants, best, shown.decides),
        "entrants": entrants,
        "frontier": {entrant.key for entrant in best},
        "prices": [said for contest in contests if (said := price.sentence(shown, contest))],
        "test": words.test_name(shown, shown.decides),
        "machines": _machines(shown),
        "duration": duration,
        "count": lambda value: f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,.0f}",
        "bars": words.bars(shown),
    }


def chart(entrants: Sequence[Entrant], best: Sequence[Entrant], test: str) -> Picture:
    """A point for each of `entrants` with its interval on `test`, by the seconds until it can answer; a line through
    the frontier `best`."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure, axes = charts.new(3.9)
    shapes, tips = charts.markers([entrant.head for entrant in entrants]), {}
    steps = [(_seconds(entrant), entrant.scores[test].mean) for entrant in best]
    ends = [*steps, (2 * max(map(_seconds, entrants)), steps[-1][1])] if steps else []
    axes.plot(
        *zip(*ends, strict=True) if ends else ([], []), color=colour("muted"), drawstyle="steps-post", linewidth=1.2
    )
    for number, entrant in enumerate(entrants):
        score, at, shade = entrant.scores[test], _seconds(entrant), colour(entrant.way)
        gid = f"tip-{number}"
        tips[gid] = f"{entrant.name}: {score.mean:.1%} for {duration(at)}"
        axes.plot([at, at], [score.low, score.high], color=shade, linewidth=1.4, alpha=0.45, zorder=2)
        marker: dict[str, Any] = {"markersize": 8.5, "markeredgecolor": "#ffffff", "markeredgewidth": 0.7, "gid": gid}
        axes.plot(at, score.mean, shapes[entrant.head], color=shade, zorder=3, **marker)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    axes.minorticks_off()
    axes.set(xlabel="time until it can answer", ylabel=f"accuracy on {test}")
    charts.percent(axes, x=False)
    bottom = charts.legend(figure, entrants, shapes, studied=False)
    figure.subplots_adjust(left=0.145, right=0.97, top=0.97, bottom=bottom)
    return picture(figure, "cost", f"Accuracy on {test} against the time until an encoder and head can answer", tips)


def _seconds(entrant: Entrant) -> float:
    return max(entrant.seconds or 0.0, LEAST)


def _machines(shown: Subject) -> str:
    """Where the seconds were measured, and a warning if that was on several machines."""
    names = [name for name in shown.table["measured_on"].unique().sort().to_list() if name]
    machines = {re.sub(r" \(\w+\)$", "", name) for name in names}
    if len(machines) > 1 or any(" + " in one for one in machines):
        return f"Seconds come from several machines and do not compare well: {'; '.join(names)}."
    return f"Measured on {names[-1]}." if names else ""
