"""The page's sentences that depend on the figures."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from toolkit.data.labels import some
from toolkit.encoders.record import Sees
from toolkit.errors import listed
from toolkit.results.classes import Pair
from toolkit.results.entrants import REFERENCES, Entrant, Subject
from toolkit.results.notes import notes


def test_names(shown: Subject) -> dict[str, str]:
    """A name for each test set that says what it holds."""
    if len(shown.tests) == 1:
        return {"base": "Test images"}
    many = shown.kinds
    if shown.new_labels:
        return {
            "base": f"Base: the {len(shown.labels_on('base'))} labels in training",
            "novel": f"Novel: {_new(shown)}",
        }
    novel = f"Novel: {shown.held_out[0]}" if len(shown.held_out) == 1 else f"Novel: {len(shown.held_out)} {many}"
    return {"base": f"Base: the other {many}", "novel": novel}


def _new(shown: Subject) -> str:
    return f"{len(shown.new_labels)} new labels"


def test_name(shown: Subject, test: str) -> str:
    """`base` and `novel`; `test images` where nothing was held out."""
    return test if len(shown.tests) > 1 else "test images"


def facts(shown: Subject) -> str:
    """One line: data, model, how many images, when."""
    about = shown.about
    what = shown.held_out[0] if len(shown.held_out) == 1 else f"{len(shown.held_out)} {shown.kinds} in turn"
    what = _new(shown) if shown.new_labels else what
    parts = [about["dataset"], f"{what if shown.held_out else 'nothing'} held out"]
    parts += [f"{about['model']} ({about['pretrained']})", f"{_trained_on(shown)} training images"]
    for test in shown.tests:
        parts.append(f"{_images(shown, test)} {test if len(shown.tests) > 1 else ''} test images".replace("  ", " "))
    return " · ".join([*parts, f"{about['created']} UTC"])


def compared(shown: Subject) -> list[str]:
    """The question, the encoders and heads that answered it, and the images: a sentence or two each."""
    users = [entrant for entrant in shown.entrants if entrant.way != "reference"] or shown.entrants
    heads = list(dict.fromkeys(entrant.head for entrant in users))
    encoders = list(dict.fromkeys(entrant.encoder for entrant in users))
    who = (
        f"{_question(shown.labels)} It was put to {listed(encoders)} with the heads {listed(heads)}: {len(users)} "
        f"combinations, on the same images of {shown.about['dataset']}."
    )
    said = [who, _held_out(shown)]
    if shown.references and users != shown.entrants:
        without = listed([f"{REFERENCES[Sees(entrant.encoder)]} ({entrant.head})" for entrant in shown.references])
        said.append(f"For reference, the table also has what does without CLIP: {without}.")
    return [*said, _repeated(shown)] if len(shown.seeds) > 1 else said


def _question(labels: Sequence[str]) -> str:
    if len(labels) == 2:
        return f"The question was whether an image is {labels[0]} or {labels[1]}."
    return f"The question was which of {len(labels)} labels an image has ({some(labels)})."


def _held_out(shown: Subject) -> str:
    count = _trained_on(shown)
    if not shown.held_out:
        return (
            f"Training saw {count} images. No {shown.kind} was held out, so these figures say nothing about images of "
            "a new kind."
        )
    if shown.new_labels:
        return (
            f"Training saw {count} images of {len(shown.labels_on('base'))} labels. “Base” are "
            f"{_images(shown, 'base')} test images of these labels, “novel” are {_images(shown, 'novel')} of the "
            f"others ({some(shown.new_labels)}). A head chooses among the labels of one part alone. Heads that need "
            "training images of a label are scored on base alone."
        )
    if len(shown.held_out) == 1:
        novel = shown.held_out[0]
        return (
            f"Training saw {count} images, and none of {novel}. “Base” are {_images(shown, 'base')} test images of the "
            f"{shown.kinds} in training, “novel” are {_images(shown, 'novel')} images of {novel}. Novel images show "
            f"whether a head learned to answer the question, or only knows the {shown.kinds} in training."
        )
    return (
        f"{len(shown.held_out)} {shown.kinds} were held out, one at a time ({listed(shown.held_out)}). Each time "
        f"training saw {count} images, none of that {shown.kind}. “Novel” are the test images of that {shown.kind}, "
        "“base” are those of the others."
    )


def _trained_on(shown: Subject) -> str:
    """`900`; of several numbers of training images the least and the most, `700 to 900`."""
    counts = set(shown.table["train_rows"])
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def _repeated(shown: Subject) -> str:
    return (
        f"All of it was repeated with {len(shown.seeds)} random seeds, each with its own draw of the training images."
    )


def _images(shown: Subject, test: str) -> str:
    return f"{shown.images(test):,}"


def bars(shown: Subject) -> str:
    """What the bars in the charts are."""
    return "95 % intervals" if _single(shown) else "the range from the worst to the best run"


def _single(shown: Subject) -> bool:
    return all(score.runs == 1 for entrant in shown.entrants for score in entrant.scores.values())


def _flattery(shown: Subject) -> list[str]:
    """By how much picking the most accurate row is expected to flatter it; nothing where that is not known."""
    best = shown.table.filter((pl.col("class") == "all") & (pl.col("selection_bias") > 0))
    means = best.group_by("test", maintain_order=True).agg(pl.col("selection_bias").mean()).iter_rows()
    said = [f"{100 * bias:.1f} points on {test_name(shown, test)}" for test, bias in means]
    return [f"Picking the most accurate row flatters it by about {listed(said)}."] if said else []


def of_table(shown: Subject) -> str:
    """The small print under the summary table."""
    chance = shown.chance
    said = [
        "Accuracy is the share of test images that were labelled right, here with its 95 % interval (Wilson’s)."
        if _single(shown)
        else "Accuracy is the share of test images that were labelled right: the mean over the runs, and the range "
        "from the worst to the best run.",
        f"The grey line is the accuracy of always answering {_most_frequent(shown)} ({chance:.0%}).".replace("%", " %"),
    ]
    if any(score.standing for entrant in shown.entrants for score in entrant.scores.values()):
        said.append(
            "“best” is the most accurate; “≈ best” is as good: the 95 % interval of the difference on the same images "
            f"shows that it is behind by less than {100 * shown.margin:g} points. “not told apart” may be "
            "as good or worse (p ≥ 0.05, corrected for picking the best of all rows on these images)."
        )
    said += [*_flattery(shown), *notes(shown.table)]
    if any(score.study is not None for entrant in shown.entrants for score in entrant.scores.values()):
        said.append(
            "The diamond is the figure of the study that this toolkit starts from (ViT-B/32, OpenAI’s weights)."
        )
    if len(shown.tests) > 1:
        said.append("Drop is base minus novel accuracy, in points.")
    if has_thresholds(shown):
        said.append(
            "“At chosen threshold” is the accuracy at the threshold that left-out training images chose, in place of "
            "P = 0.5; no test image chose it. It is empty for encoders that were trained on those images."
        )
    if shown.many:
        said.append("ROC AUC is the mean over the labels, each against all others.")
    return " ".join(said)


def has_thresholds(shown: Subject) -> bool:
    """Whether left-out images chose a threshold for some entrant on the test set that decides."""
    scores = [entrant.scores.get(shown.decides) for entrant in shown.entrants]
    return any(score is not None and score.at_threshold is not None for score in scores)


def _most_frequent(shown: Subject) -> str:
    return "the most frequent label" if shown.many else "the more frequent label"


def of_averages(shown: Subject) -> str:
    """The small print under the averages over labels."""
    said = ["Balanced accuracy and macro F1 are means over the labels: rare labels count as much as frequent ones."]
    if len(shown.labels) > 5:
        said.append("Top-5 accuracy is the share of images whose label is among the five most probable.")
    said.append(
        "ROC AUC is the mean of each label against all others. Calibration error compares the probability of the "
        "predicted label with how often it was right (15 equal bins)."
    )
    return " ".join(said)


def of_card(shown: Subject, test: str, figures: dict[str, Any], worst: Sequence[Pair]) -> str:
    """The figures under one head's curves, of one test set."""
    test = test_name(shown, test)
    if not shown.many:
        error, expected = figures["calibration_error"], figures["calibration_error_expected"]
        by_chance = "" if expected is None else f" ({expected:.3f} by chance alone)"
        return f"{test}: AUC {figures['roc_auc']:.3f}, calibration error {error:.3f}{by_chance}"
    said = f"{test}: macro F1 {figures['f1']:.3f}, log loss {figures['log_loss']:.2f}, "
    said += f"calibration error {figures['top_calibration_error']:.3f}"
    return f"{said}, worst pair {pair(worst[0])}" if worst else said


def pair(one: Pair) -> str:
    """`cat is called dog: 38 of 200`."""
    return f"{one.label} is called {one.called}: {one.count:,} of {one.of:,}"


def of_detail(shown: Subject, held_out: str, seed: int) -> str:
    """Which of several runs the details show."""
    if len(shown.held_out) > 1:
        run = (
            f"Curves, confusion matrices, maps and images are of one run, with the {shown.kind} {held_out} held out. "
            "Unless another was asked for, it is the one where the best head is least accurate."
        )
    else:
        run = ""
    seeds = f" They are of seed {seed}." if len(shown.seeds) > 1 else ""
    return (run + seeds).strip()


def of_images(shown: Subject, best: Entrant, held_out: str) -> str:
    """What the thumbnails are."""
    novel = shown.decides == "novel"
    which = f"Test images of {_new(shown) if shown.new_labels else held_out}, which training never saw"
    which = which if novel else "Test images"
    p = "the predicted label" if shown.many else shown.labels[1]
    under = " The true label stands under each image, and after an arrow the predicted one." if shown.many else ""
    return (
        f"{which}, on which {best.name} was surest. P is its probability of {p}.{under} Hover over an image for its "
        "file name."
    )


def shortcut(shown: Subject) -> str:
    """A warning where facts of the files predict the label, without a look at the pictures; else nothing."""
    told = [
        (entrant.scores[test].mean, shown.chance_on(test))
        for entrant in shown.references
        for test in entrant.scores
        if entrant.encoder == Sees.FILE_FACTS and shown.interval(entrant, test)[0] > shown.chance_on(test)
    ]
    if not told:
        return ""
    mean, chance = max(told, key=lambda one: one[0] - one[1])
    return (
        f"Beware: facts of the files alone (format, size, compression) predict {mean:.1%} of the labels (always giving "
        f"the same answer: {chance:.0%}). Part of every accuracy here may have nothing to do with the pictures."
    ).replace("%", " %")


def warning(shown: Subject, best: Entrant | None) -> str:
    """A warning where files predict the label, or even the winner may be guessing; else nothing."""
    if told := shortcut(shown):
        return told
    if best is None:
        return "Only heads that do without CLIP were compared."
    if shown.interval(best, shown.decides)[0] > shown.chance:
        return ""
    return (
        f"Even the best one may be guessing on {test_name(shown, shown.decides)}: its "
        f"{best.scores[shown.decides].mean:.1%} is not significantly more than the {shown.chance:.0%} of always giving "
        "the same answer."
    ).replace("%", " %")


def p_value(p: float) -> str:
    """`< 0.001`, `0.012`, `0.43`."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def probability(p: float) -> str:
    """Three digits, but never 0 or 1."""
    return "< 0.001" if p < 0.001 else "> 0.999" if p > 0.999 else f"{p:.3f}"


def p_words(shown: Subject, values: int) -> str:
    """How p was computed, where novel images are compared over so many held-out `values` (0: over images)."""
    if _single(shown):
        return "exact McNemar test on the same images; against the most accurate of all, corrected for picking that."
    seeds = ", and which covers the choice of training images, too" if len(shown.seeds) > 1 else ""
    images = "the larger of two: the exact sign test, in which each image counts once, for whichever of the two was "
    images += f"right on it in more runs; and that of the paired interval, which weighs how often{seeds}."
    if not values:
        return images
    return f"on novel images the sign-flip test over {values} {shown.kinds} (Fisher 1935); on base {images}"
