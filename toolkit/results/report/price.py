"""What a point of accuracy costs: each contest in a sentence, and the frontier of accuracy and cost."""

from collections.abc import Sequence

from toolkit.results.costs import duration
from toolkit.results.entrants import NAMES, WAYS, Entrant, Subject
from toolkit.results.report.verdict import Contest, Duel, signed
from toolkit.results.report.words import test_name

SILLY_RATIO, NOTHING = 100, 0.1
"""Above this ratio, and below these seconds, a price is said without comparing: nobody waits for it."""


def sentence(shown: Subject, contest: Contest, figures: bool = True) -> str:
    """The challenger's price against the holder's, and what it buys, on the first test set with a significant
    difference; with `figures`, also that difference with its interval. Empty if one of the two is not known."""
    mine, theirs = (entrant.seconds for entrant in (contest.challenger, contest.holder))
    if not mine or not theirs:
        return ""
    name, telling = NAMES[contest.challenger.way], contest.telling or next(iter(contest.duels.values()))
    price = f"{name[0].upper()}{name[1:]} costs {_costs(mine, theirs, NAMES[contest.holder.way])}"
    where = f"on {test_name(shown, telling.test)}"
    said = "points" if telling.sure else f"points {where}"
    found = f": {signed(telling.difference)} {said} ({signed(telling.low)} to {signed(telling.high)})"
    return f"{price} and {_bought(telling, mine - theirs, where)}{found if figures else ''}."


def _bought(telling: Duel, extra: float, where: str) -> str:
    if not telling.sure:
        return "gains nothing that chance would not explain"
    if telling.difference < 0:
        return f"loses accuracy {where}"
    seconds = extra / (100 * telling.difference)
    each = f", {duration(seconds)} for each point" if seconds >= 1 else ""
    return f"gains accuracy {where}{each}"


def _costs(mine: float, theirs: float, other: str) -> str:
    if mine < NOTHING and theirs < NOTHING:
        return f"next to nothing, like {other},"
    if min(mine, theirs) < NOTHING or mine / theirs > SILLY_RATIO:
        paid, instead = ("nothing" if one < NOTHING else duration(one) for one in (mine, theirs))
        return f"{paid}{' once' if mine >= NOTHING else ''}, instead of {instead},"
    return f"{_times(mine / theirs)} {other} ({duration(mine)} against {duration(theirs)})"


def _times(ratio: float) -> str:
    if ratio < 0.95:
        return f"{ratio:.2g} times"
    return "as much as" if ratio < 1.05 else f"{ratio:,.1f} times" if ratio < 9.95 else f"{ratio:,.0f} times"


def priced(shown: Subject) -> list[Entrant]:
    """The entrants with a known cost and a score on the deciding test set, the cheapest first."""
    known = [one for one in shown.ranked([*WAYS, "reference"]) if one.seconds is not None]
    return sorted(known, key=lambda one: (one.seconds or 0.0, -one.scores[shown.decides].mean))


def frontier(entrants: Sequence[Entrant], test: str) -> list[Entrant]:
    """Of entrants in the order of `priced`, those that no other beats in both; without references, which never answer.

    One that is as accurate as a cheaper one is beaten."""
    found: list[Entrant] = []
    for one in (one for one in entrants if one.way in WAYS):
        if not found or one.scores[test].mean > found[-1].scores[test].mean:
            found.append(one)
    return found
