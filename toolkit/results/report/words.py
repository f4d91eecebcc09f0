"""What the page says in words: sentences that depend on the figures."""

import polars as pl

from toolkit.encoders.record import Sees
from toolkit.results.report.entrants import REFERENCES, Entrant, Subject


def join(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def test_names(shown: Subject) -> dict[str, str]:
    """What each test set holds."""
    if len(shown.tests) == 1:
        return {"base": "Test images"}
    many = shown.kinds
    novel = f"Novel: {shown.held_out[0]}" if len(shown.held_out) == 1 else f"Novel: {len(shown.held_out)} {many}"
    return {"base": f"Base: the other {many}", "novel": novel}


def facts(shown: Subject) -> str:
    """One line: data, model, how many images, when."""
    about = shown.about
    trained = join([f"{count:,}" for count in sorted(set(shown.table["train_rows"]))[:2]])
    what = shown.held_out[0] if len(shown.held_out) == 1 else f"{len(shown.held_out)} {shown.kinds} in turn"
    parts = [about["dataset"], f"{what if shown.held_out else 'nothing'} held out"]
    parts += [f"{about['model']} ({about['pretrained']})", f"{trained} training images"]
    for test in shown.tests:
        parts.append(f"{_images(shown, test)} {test} test images")
    return " · ".join([*parts, f"{about['created']} UTC"])


def compared(shown: Subject) -> list[str]:
    """What was asked, of whom, and on which images."""
    users = [entrant for entrant in shown.entrants if entrant.way != "reference"] or shown.entrants
    heads = list(dict.fromkeys(entrant.head for entrant in users))
    encoders = list(dict.fromkeys(entrant.encoder for entrant in users))
    first, second = shown.labels
    who = (
        f"The question was whether an image is {first} or {second}. It was put to {join(encoders)}, with the heads "
        f"{join(heads)}: {len(users)} combinations, all on the same images of {shown.about['dataset']}."
    )
    said = [who, _held_out(shown)]
    if shown.references and users != shown.entrants:
        without = join([f"{REFERENCES[Sees(entrant.encoder)]} ({entrant.head})" for entrant in shown.references])
        said.append(f"Beside them stands what does without CLIP: {without}.")
    return [*said, _repeated(shown)] if len(shown.seeds) > 1 else said


def _held_out(shown: Subject) -> str:
    count = join([f"{count:,}" for count in sorted(set(shown.table["train_rows"]))[:2]])
    if not shown.held_out:
        return f"Nothing was held out, so nothing is said about images of a new kind. Training saw {count} images."
    if len(shown.held_out) == 1:
        novel = shown.held_out[0]
        return (
            f"Training saw {count} images, and none of {novel}. “Base” are {_images(shown, 'base')} test images of the "
            f"{shown.kinds} that it saw, “novel” {_images(shown, 'novel')} of {novel}: they show what was learned of "
            f"the question, and not of the {shown.kinds}."
        )
    return (
        f"{len(shown.held_out)} {shown.kinds} were held out, each in its turn ({join(shown.held_out)}). Each time "
        f"training saw {count} images, none of that {shown.kind}; “novel” are the test images of it, "
        "“base” those of the others."
    )


def _repeated(shown: Subject) -> str:
    return f"Everything random was repeated with {len(shown.seeds)} seeds."


def _images(shown: Subject, test: str) -> str:
    return f"{shown.predictions.filter(pl.col('test') == test)['path'].n_unique():,}"


def bars(shown: Subject) -> str:
    """What the bars of the charts show."""
    return "95 % intervals" if _single(shown) else "from the worst to the best run"


def _single(shown: Subject) -> bool:
    return all(score.runs == 1 for entrant in shown.entrants for score in entrant.scores.values())


def of_table(shown: Subject, chance: float) -> str:
    """The small print under the summary table."""
    said = [
        "Share of test images that were called right, with its 95 % interval (Wilson’s)."
        if _single(shown)
        else "Share of test images that were called right: the mean over the runs, and their range from worst to best.",
        f"The grey line is what always guessing the commoner label gets ({chance:.0%}).".replace("%", " %"),
    ]
    if any(score.standing for entrant in shown.entrants for score in entrant.scores.values()):
        said.append(
            "“best” is the most accurate; “≈ best” cannot be told apart from it (exact McNemar test, p ≥ 0.05)."
        )
    if any(score.study is not None for entrant in shown.entrants for score in entrant.scores.values()):
        said.append(
            "The diamond is the figure of the study that this toolkit starts from (ViT-B/32, OpenAI’s weights)."
        )
    if len(shown.tests) > 1:
        said.append("Drop: base minus novel, in points.")
    return " ".join(said)


def of_detail(shown: Subject, held_out: str, seed: int) -> str:
    """Which run the details are of."""
    if len(shown.held_out) > 1:
        run = (
            f"Curves, confusions, maps and images are those of one held-out {shown.kind}, {held_out}: the one that the "
            "best head finds hardest, unless another was asked for."
        )
    else:
        run = ""
    seeds = f" They are those of seed {seed}." if len(shown.seeds) > 1 else ""
    return (run + seeds).strip()


def of_images(best: Entrant, held_out: str, novel: bool, second: str) -> str:
    """What the thumbnails are."""
    which = f"Test images of {held_out}, which training never saw" if novel else "Test images"
    return (
        f"{which}, of which {best.name} was surest. P is its probability of {second}; a pointer shows the file’s name."
    )


def shortcut(shown: Subject, chance: float) -> str:
    """A line where the label can be told without looking at the pictures."""
    for entrant in shown.references:
        score = max(entrant.scores.values(), key=lambda score: score.low)
        if entrant.encoder == Sees.FILE_FACTS and score.low > chance:
            return (
                f"Beware: facts of the files alone (format, size, compression) give {score.mean:.1%} of the labels "
                "away, so that part of every accuracy here may have nothing to do with the pictures."
            ).replace("%", " %")
    return ""


def warning(shown: Subject, best: Entrant | None, chance: float) -> str:
    """A line where even the winner may only be guessing, or the data gives the labels away."""
    if told := shortcut(shown, chance):
        return told
    if best is None:
        return "Only heads that do without CLIP were compared."
    score = best.scores[shown.decides]
    if score.low > chance:
        return ""
    return (
        f"Even the best one may be guessing on {shown.decides}: its {score.mean:.1%} cannot be told apart from the "
        f"{chance:.0%} of always saying the same."
    ).replace("%", " %")


def p_value(p: float) -> str:
    """`< 0.001`, `0.012`, `0.43`."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def probability(p: float) -> str:
    """Never rounded to certainty."""
    return "< 0.001" if p < 0.001 else "> 0.999" if p > 0.999 else f"{p:.3f}"


def p_words(shown: Subject) -> str:
    """How p was computed."""
    if _single(shown):
        return "exact McNemar test on the same images."
    return "exact sign test over images, each counted once by which of the two was right on it more often."
