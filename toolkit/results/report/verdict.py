"""Prompt, probe, or fine-tune: the answer and its uncertainty, from the predictions."""

from dataclasses import dataclass, replace

import polars as pl

from toolkit.evaluation import paired
from toolkit.evaluation.intervals import of_mean, sign_flip
from toolkit.evaluation.metrics import mcnemar
from toolkit.results.entrants import LEAST_VALUES, NAMES, REPETITION, WAYS, Entrant, Subject
from toolkit.results.summary import p_against_best

ALPHA = 0.05

PICKED = (
    "Each way is represented by its most accurate head. It was picked on these same test images, which flatters every "
    "way a little."
)
RULE = (
    "The ways are compared from the cheapest to the most expensive. The more expensive one wins only if it is "
    f"significantly more accurate (p < {ALPHA}): on novel images, or, where there is no significant difference on "
    "those, on base. Otherwise the cheaper one stays. It is called as good only if the 95 % interval shows that it is "
    f"behind by less than the margin; else the two cannot be told apart. Undecided: no way "
    "won and one cannot be told from the cheapest, or the interval of the answer includes always giving the same one. "
    f"Where {LEAST_VALUES} or more values were held out, interval and p on novel images are over these values, and say "
    f"what to expect of another one; elsewhere they are over images of the same kind. {PICKED}"
)


@dataclass(frozen=True)
class Duel:
    """Two entrants on the same images: accuracy of the first minus that of the second, its 95 % interval, and the
    two-sided p-value of no difference. Their unit is the held-out value where there are `values`, else the image."""

    test: str
    images: int
    difference: float
    low: float
    high: float
    p: float
    values: int = 0

    @property
    def sure(self) -> bool:
        return self.p < ALPHA


@dataclass(frozen=True)
class Contest:
    """The best entrant of a way against the best one so far of the cheaper ways, on each test set."""

    challenger: Entrant
    holder: Entrant
    duels: dict[str, Duel]

    @property
    def telling(self) -> Duel | None:
        """The duel on the first test set, novel before base, with a significant difference."""
        return next((one for one in self.duels.values() if one.sure), None)

    @property
    def won(self) -> bool:
        """Whether the challenger is significantly more accurate there."""
        return self.telling is not None and self.telling.difference > 0

    def open(self, margin: float) -> bool:
        """Whether the images show neither a difference nor that the holder is as good within the margin."""
        return self.telling is None and any(one.high >= margin for one in self.duels.values())


@dataclass(frozen=True)
class Verdict:
    """`way` is the winner's (`entrants.WAYS`), empty where the images decide nothing. `best` has the most accurate
    entrant of each way that was tried, `leader` is the winner's or, undecided, the most accurate of all."""

    way: str
    best: dict[str, Entrant]
    leader: Entrant
    contests: list[Contest]
    sentence: str


def reach(subject: Subject) -> Verdict:
    """The verdict on a study. Where no way of using CLIP was compared, `best` is empty and `leader` is the first
    entrant."""
    best = {way: ranked[0] for way in WAYS if (ranked := subject.ranked([way]))}
    if not best:
        return Verdict("", {}, subject.entrants[0], [], "No way of using CLIP was compared.")
    way, *dearer = best
    contests = []
    for challenger in dearer:
        contest = contend(subject, best[challenger], best[way])
        contests.append(contest)
        way = challenger if contest.won else way
    if said := _undecided(subject, way, best, contests):
        return Verdict("", best, subject.ranked()[0], contests, said)
    return Verdict(way, best, best[way], contests, _sentence(subject, way, best, contests))


def contend(subject: Subject, challenger: Entrant, holder: Entrant) -> Contest:
    """The challenger wins if it is more accurate on the first test set, novel before base, with a significant
    difference."""
    keys = challenger.key, holder.key
    duels = {test: duel(subject.predictions, *keys, test) for test in reversed(subject.tests)}
    return Contest(challenger, holder, {test: _corrected(subject, one, keys) for test, one in duels.items()})


def _corrected(subject: Subject, one: Duel, keys: tuple[str, str]) -> Duel:
    """In a single run, and where one of the two is the most accurate of all: with the table's p-value, which is
    corrected for having picked that one on these images."""
    mine = (pl.col("test") == one.test) & (pl.col("class") == "all") & pl.col("entrant").is_in(keys)
    rows = subject.table.filter(mine).to_dicts()
    behind = [p for row in rows if (p := p_against_best(row)) is not None]
    return replace(one, p=max(one.p, *behind)) if len(rows) == 2 and len(behind) == 1 else one


def duel(predictions: pl.DataFrame, first: str, second: str, test: str) -> Duel:
    """Compare two entrants on the images of one test set.

    The interval is `paired.interval`. In a single run the p-value is that of the exact McNemar test. Over several, an
    image that comes again counts once in that test, for the entrant that was right on it in more runs; but the p-value
    is never below that of the interval, which weighs how often, and covers several seeds, too. Every run has the same
    weight, as in the means that the page shows. On novel images of `LEAST_VALUES` held-out values or more the unit is
    the value: Student's t interval of the mean gain, and the sign-flip test.
    """
    pairs = _pairs(predictions, first, second, test)
    if pairs.is_empty():
        return Duel(test, 0, 0.0, -1.0, 1.0, 1.0)
    if test == "novel" and pairs["held_out"].n_unique() >= LEAST_VALUES:
        return _over_values(test, pairs)
    return _over_images(test, pairs)


def _pairs(predictions: pl.DataFrame, first: str, second: str, test: str) -> pl.DataFrame:
    """A row for each image and run that both scored, with the first one's `gain` (-1, 0, 1)."""
    by = [*REPETITION, "path", "sha256"]
    mine, theirs = (
        predictions.filter((pl.col("test") == test) & (pl.col("entrant") == entrant)).select(
            *by, right=(pl.col("label") == pl.col("predicted")).cast(pl.Int64)
        )
        for entrant in (first, second)
    )
    return mine.join(theirs, on=by, suffix="_second").with_columns(gain=pl.col("right") - pl.col("right_second"))


def _over_values(test: str, pairs: pl.DataFrame) -> Duel:
    each = pairs.group_by("held_out", maintain_order=True).agg(pl.col("gain").mean())["gain"].to_numpy()
    (low, high), images = of_mean(each), pairs.select("path", "sha256").n_unique()
    return Duel(test, images, float(each.mean()), max(low, -1.0), min(high, 1.0), sign_flip(each), len(each))


def _over_images(test: str, pairs: pl.DataFrame) -> Duel:
    runs, weighted = pairs.select(REPETITION).n_unique(), pl.col("gain") * pl.col("weight")
    pairs = pairs.with_columns(weight=len(pairs) / (runs * pl.len().over(REPETITION)))
    by_image = pairs.group_by("path", "sha256", maintain_order=True)
    images = by_image.agg(pl.col("gain").sum(), weighted=weighted.sum(), weight=pl.col("weight").sum())
    gain, weighted_gain, weight = (images[name].to_numpy() for name in ("gain", "weighted", "weight"))
    of_seeds = (
        pairs.group_by("seed", maintain_order=True).agg(weighted.sum() / pl.col("weight").sum())["gain"].to_list()
    )
    p = mcnemar(gain > 0, gain < 0)
    p = p if runs == 1 else max(p, paired.p_value(weighted_gain, weight, of_seeds))
    interval = paired.interval(weighted_gain, weight, of_seeds)
    return Duel(test, len(images), float(weighted_gain.sum() / weight.sum()), *interval, p)


def _undecided(subject: Subject, way: str, best: dict[str, Entrant], contests: list[Contest]) -> str:
    """What the images tell where they do not decide for `way`; empty where they do."""
    rivals = _rivals(subject, way, best, contests)
    guessing = [one.way for one in best.values() if subject.interval(one, subject.decides)[0] <= subject.chance]
    if not rivals and way not in guessing:
        return ""
    if len(guessing) == len(best):
        found = f"do not show that any way beats always giving the same answer ({_percent(subject.chance)})"
    elif len(rivals) == 1 < len(contests):
        found = f"cannot tell {NAMES[rivals[0].challenger.way]} from {NAMES[rivals[0].holder.way]}"
    else:
        found = "cannot tell the ways apart"
    where = "novel test images" if len(subject.tests) > 1 else "test images"
    more = subject.kinds if contests and contests[0].duels[subject.decides].values else "pictures"
    images = f"{subject.images(subject.decides):,} {where}"
    return f"{images} {found}: {_read(subject, best)}. Take more {more}.{_missing(subject, best)}"


def _rivals(subject: Subject, way: str, best: dict[str, Entrant], contests: list[Contest]) -> list[Contest]:
    """The ways that would have to be told apart for `way` to be the answer, and are not.

    The cheapest way wins where every other is no better; any other way, where it beats each cheaper one that was not
    ruled out."""
    open_ = [one for one in contests if one.open(subject.margin)]
    if way == next(iter(best)):
        return open_
    cheaper = [*best][: [*best].index(way)]
    again = [contend(subject, best[way], one.challenger) for one in open_ if one.challenger.way in cheaper]
    return [one for one in again if not one.won]


def _read(subject: Subject, best: dict[str, Entrant]) -> str:
    """The accuracy of each way, the best one's first and with its interval."""
    first, *others = sorted(best.values(), key=lambda one: -one.scores[subject.decides].mean)
    low, high = subject.interval(first, subject.decides)
    reads = f"{NAMES[first.way]} {'read' if first.way == 'prompt' else 'reads'}"
    said = [f"{reads} {_percent(first.scores[subject.decides].mean)} ({points(low)} to {points(high)})"]
    return ", ".join([*said, *(f"{NAMES[one.way]} {_percent(one.scores[subject.decides].mean)}" for one in others)])


def _percent(share: float) -> str:
    return f"{points(share)} %"


def _sentence(subject: Subject, way: str, best: dict[str, Entrant], contests: list[Contest]) -> str:
    """The result of the last contest, that of the most expensive way."""
    if not contests:
        if subject.new_labels and {entrant.way for entrant in subject.entrants} & {*WAYS} - {way}:
            return "On new labels there is nothing to choose between: the trained heads cannot know them."
        only = {"prompt": "Only prompts", "probe": "Only probes", "finetune": "Only fine-tuned encoders"}[way]
        missing = _missing(subject, best) if "finetune" in subject.tried else ""
        return f"{only} were compared so far, so there is nothing to choose between.{missing}"
    last = contests[-1]
    name = {"probe": "Probing", "finetune": "Fine-tuning"}[last.challenger.way]
    cheaper = {"prompt": "prompts alone", "probe": "a probe on the frozen CLIP"}[last.holder.way]
    if any(one.sure for one in last.duels.values()):
        gains = [_gain(subject, one) for one in sorted(last.duels.values(), key=lambda one: not one.sure)]
        verb = gains[0].split()[0]
        words = f"Compared with {cheaper}, {name.lower()} {' and '.join(gains).replace(f' and {verb} ', ' and ')}."
    else:
        found = " and ".join(f"{signed(one.difference)} points {_where(subject, one)}" for one in last.duels.values())
        words = f"{name} makes no significant difference: {found}, compared with {cheaper}"
        words += f"; {_as_good(subject, list(last.duels.values()), last.holder.way)}."
    return f"{words}{_missing(subject, best)}"


def _missing(subject: Subject, best: dict[str, Entrant]) -> str:
    """What to know where fine-tuning is not among the ways that were compared."""
    if "finetune" in best:
        return ""
    if "finetune" in subject.tried:
        each = f"{subject.kind} and seed" if subject.held_out else "seed"
        return f" Fine-tuning was not tried with every {each} of the others, so it is not compared."
    return " Fine-tuning has not been tried yet."


def _as_good(subject: Subject, duels: list[Duel], way: str) -> str:
    """Whether the cheaper way is as good within the margin on all test sets; else where they cannot be told apart."""
    said = f"(margin {points(subject.margin)} points)"
    undecided = [one for one in duels if one.high >= subject.margin]
    if not undecided:
        return f"{'they are' if way == 'prompt' else 'it is'} as good {said}"
    where = "" if len(undecided) == len(duels) else f" {_where(subject, undecided[0])}"
    return f"the images cannot tell the two apart{where} {said}"


def _gain(subject: Subject, one: Duel) -> str:
    if not one.sure:
        return f"makes no significant difference {_where(subject, one)} ({signed(one.difference)} points)"
    low, high = (one.low, one.high) if one.difference > 0 else (-one.high, -one.low)
    gained = f"{points(abs(one.difference))} points ({points(low)} to {points(high)})"
    return f"{'gains' if one.difference > 0 else 'loses'} {gained} {_where(subject, one)}"


def _where(subject: Subject, one: Duel) -> str:
    if "novel" not in subject.tests:
        return "on the test images"
    if one.test == "base":
        return f"on {subject.kinds} that training saw"
    if one.values or subject.new_labels:
        return f"on {subject.kinds} that training never saw"
    few = f"the {len(subject.held_out)} {subject.kinds}" if len(subject.held_out) > 1 else f"the {subject.kind}"
    return f"on {few} that training never saw"


def points(share: float) -> str:
    """0.16 -> `16.0`, with a true minus sign."""
    return f"{100 * _rounded(share):.1f}".replace("-", "−")


def signed(share: float) -> str:
    """0.245 -> `+24.5`, with a true minus sign, for points."""
    return f"{100 * _rounded(share):+.1f}".replace("-", "−")


def _rounded(share: float) -> float:
    """To three digits as the terminal does, so that 0.8625 reads 86.3 here, too."""
    return float(f"{share:.3f}")
