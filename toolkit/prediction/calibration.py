"""Abstention and operating points of a kept head: chosen on training images, measured on test images.

A head's scores on images that it was fitted on do not show how it does on new ones. So `abstaining` fits it again on
three quarters of the training images and calibrates on the rest, and `operating_point` scores each training image with
a head fitted without its category.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sklearn.base import clone

from toolkit.cache.store import Cache
from toolkit.data.labels import some
from toolkit.data.manifest import Stages
from toolkit.errors import SelectionError, counted, did_you_mean
from toolkit.heads.base import fold_numbers, folds
from toolkit.prediction import conformal, kept_heads
from toolkit.prediction.kept_heads import KeptHead

CALIBRATION_SHARE = 0.25
Answers = Callable[[np.ndarray], np.ndarray]
"""Probabilities `[N, labels]` -> the set of possible labels of each image, `[N, labels]` bool. A set of exactly one
label is an answer, any other abstains."""


@dataclass(frozen=True)
class Rule:
    """How probabilities become answers. `head` computes the probabilities, `note` states the guarantee in words,
    `measured` has the figures on each test set, `abstains` is whether some images may get no answer."""

    head: Any
    answers: Answers
    note: str
    measured: dict[str, dict[str, Any]]
    abstains: bool = False


def likelier(head: Any) -> Rule:
    """Answer with the most likely label; in a tie, the first."""
    return Rule(
        head, lambda probabilities: np.eye(probabilities.shape[1], dtype=bool)[probabilities.argmax(axis=1)], "", {}
    )


@dataclass(frozen=True)
class Fresh:
    """Labelled images that neither the head nor its encoder was trained on: vectors `[N, D]`, labels `[N]`, and the
    name of the data set."""

    vectors: np.ndarray
    labels: np.ndarray
    name: str


def abstaining(about: KeptHead, head: Any, cache: Cache, alpha: float, fresh: Fresh | None = None) -> Rule:
    """Answer only if the conformal set contains a single label.

    Without `fresh`, the training images (duplicates once) are split at random within each label. A copy of `head` with
    the same settings is fitted on three quarters of them and gives the answers; each label's threshold is a conformal
    quantile of the rest (`conformal.thresholds`). With `fresh`, the thresholds come from the fresh images, and `head`
    itself answers.

    Guarantee: if an image of a label is exchangeable with that label's calibration images, the probability that its set
    misses the label, and so of a wrong answer, is at most `alpha`, for each label separately. This is a share of all
    images, not of the answered ones. There is no guarantee for images of another kind, or if the encoder was trained on
    the calibration images, as a fine-tuned encoder was on the training images.

    Raises SelectionError for too few images, MissingEmbeddings if the cache lacks them.
    """
    if fresh:
        fitted, probabilities, codes = head, head.predict_proba(fresh.vectors), _codes(fresh.labels, head)
        how, alike = f"calibrated on {len(codes):,} images of {fresh.name} that nothing was trained on", "these"
    else:
        fitted, probabilities, codes, trained = _split(about, head, cache)
        how = f"fitted on {trained:,} training images and calibrated on {len(codes):,} others"
        alike = "the training images"
    limits = conformal.thresholds(probabilities, codes, alpha, list(head.classes_))
    note = (
        f"--alpha {alpha:g}: the head was {how}. At most {alpha:.1%} of each label's images are answered wrongly, if "
        f"they are like {alike}."
    )
    if _saw_training(about) and not fresh:
        note += (
            " NOT guaranteed here: this encoder was fine-tuned on the calibration images too. See what was measured, "
            "calibrate on other images (--calibrate), or take --encoder base."
        )

    def answers(probabilities: np.ndarray) -> np.ndarray:
        return conformal.sets(probabilities, limits)

    return Rule(fitted, answers, note, _measured(about, fitted, answers, cache), abstains=True)


def _split(about: KeptHead, head: Any, cache: Cache) -> tuple[Any, np.ndarray, np.ndarray, int]:
    """A copy of `head` fitted on three quarters of the training images; its probabilities for the rest and their label
    numbers; and how many images it was fitted on."""
    rows = kept_heads.training_rows(about).unique("sha256", keep="first", maintain_order=True)
    vectors, codes = kept_heads.vectors_of(rows, cache), _codes(rows["label"].to_numpy(), head)
    _require_two_of_each(rows)
    held_back = _held_back(codes, about.record.seed)
    fitted = clone(head).fit(vectors[~held_back], *_targets(rows.filter(~held_back)))
    return fitted, fitted.predict_proba(vectors[held_back]), codes[held_back], int((~held_back).sum())


def operating_point(
    about: KeptHead,
    head: Any,
    cache: Cache,
    recall: float,
    fresh: Fresh | None,
    progress: Stages,
    label: str | None = None,
) -> Rule:
    """Answer `label` unless the other labels' total P exceeds a threshold, then the most likely of the others.

    The threshold is a conformal quantile of that total over images of `label`, so that at least `recall` of new images
    of `label` are answered with it, if they are like these. Without `fresh`, it is computed on the training images,
    each scored by a copy of `head` fitted without its category (or its random fifth, without categories), since new
    images may be of a new category; with `fresh`, on the fresh images. `head` itself answers. `label` defaults to the
    negative one of two labels, or FAKE. Raises what `abstaining` raises, and SelectionError for a label that the head
    does not know.
    """
    kept = _to_keep(about, label)
    classes = [str(one) for one in head.classes_]
    mine, others = classes.index(kept), [number for number, one in enumerate(classes) if one != kept]
    if fresh:
        probabilities, codes = head.predict_proba(fresh.vectors), _codes(fresh.labels, head)
        how = f"chosen on {len(codes):,} images of {fresh.name} that nothing was trained on"
    else:
        probabilities, codes, how = _cross_validated(about, head, cache, progress)
    line = conformal.ranked(probabilities[codes == mine][:, others].sum(axis=1), recall, kept)

    def answers(probabilities: np.ndarray) -> np.ndarray:
        rest = probabilities[:, others]
        chosen = np.where(rest.sum(axis=1) > line, np.array(others)[rest.argmax(axis=1)], mine)
        return np.asarray(np.eye(len(classes), dtype=bool)[chosen])

    note = f"--recall {kept}={recall:g}: {_said(classes, others, line)}, {how}, so that at most {1 - recall:.2%} of "
    note += f"{kept} are called {classes[others[0]] if len(others) == 1 else 'something else'}, on average over such "
    note += f"choices ({counted(int((codes == mine).sum()), 'image')} of {kept} made this one)."
    if _saw_training(about) and not fresh:
        note += " This encoder was fine-tuned on those images, so expect more: see what was measured, or --calibrate."
    return Rule(head, answers, note, _measured(about, head, answers, cache))


def _said(classes: list[str], others: list[int], line: float) -> str:
    if len(others) == 1:
        other = classes[others[0]]
        return f"{other} only where P({other}) is above {line:.4f}"
    return f"another label only where the others' P together is above {line:.4f}"


def _to_keep(about: KeptHead, label: str | None) -> str:
    """The label whose recall is guaranteed."""
    labels = about.record.labels
    if label is None:
        label = labels.negative or "FAKE"
    if label not in labels.names:
        guess = did_you_mean(label, labels.names)
        raise SelectionError(f"The head knows no label {label!r}: --recall takes {some(labels.names)}.{guess}")
    return label


def _cross_validated(about: KeptHead, head: Any, cache: Cache, progress: Stages) -> tuple[np.ndarray, np.ndarray, str]:
    """Probabilities `[N, labels]` of the training images, each by a copy of `head` fitted without its fold; their label
    numbers; and the kind of folds in words. The probabilities are stored for the next time."""
    rows = kept_heads.training_rows(about).unique("sha256", keep="first", maintain_order=True)
    vectors, (y, groups) = kept_heads.vectors_of(rows, cache), _targets(rows)
    _require_two_of_each(rows)
    numbers, how = fold_numbers(y, groups, "category", about.record.seed)
    probabilities = kept_heads.remembered_scores(about)
    if probabilities is None:
        probabilities = np.empty((len(rows), len(head.classes_)))
        for done, (fitting, out) in enumerate(folds(numbers)):
            progress("Scoring held-out folds", done, int(numbers.max()) + 1)
            rest = None if groups is None else groups[fitting]
            probabilities[out] = clone(head).fit(vectors[fitting], y[fitting], rest).predict_proba(vectors[out])
        kept_heads.remember_scores(about, probabilities)
    what = "one category at a time" if how == "category" else "a fifth at a time"
    return probabilities, _codes(y, head), f"chosen on training images by cross-validation, {what} held out"


def _require_two_of_each(rows: pl.DataFrame) -> None:
    """Raise SelectionError where a label has one training image alone: without it, nothing is known of the label."""
    alone = rows.group_by("label").len().filter(pl.col("len") < 2)["label"].sort().to_list()
    if alone:
        raise SelectionError(
            f"The head learned from one image alone of {some(alone)}, which cannot calibrate it as well: name new "
            "images (--calibrate), or compare on more (--train-per-label)."
        )


def _saw_training(about: KeptHead) -> bool:
    """Whether the encoder itself was trained on the training images."""
    return about.record.encoder.trained_on is not None


def positive_of(about: KeptHead, head: Any) -> int:
    """The number of the positive label, whose probability is reported, among the head's classes; there must be one."""
    return [str(label) for label in head.classes_].index(str(about.record.labels.positive))


def _held_back(codes: np.ndarray, seed: int) -> np.ndarray:
    """`[N]` bool: a random quarter of each label."""
    rng = np.random.default_rng(seed)
    held_back = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        held_back[rng.permutation(rows)[: max(1, round(len(rows) * CALIBRATION_SHARE))]] = True
    return held_back


def _measured(about: KeptHead, head: Any, answers: Answers, cache: Cache) -> dict[str, dict[str, Any]]:
    """The figures of the answers on each test set whose vectors are in the cache."""
    rows, found = kept_heads.rows_of(about), {}
    for test in ("base", "novel"):
        mine = rows.filter(pl.col("role") == test)
        if mine.is_empty() or cache.missing_images(mine["sha256"].to_list()):
            continue
        contained = answers(head.predict_proba(kept_heads.vectors_of(mine, cache)))
        codes = _codes(mine["label"].to_numpy(), head)
        single = contained.sum(axis=1) == 1
        recalls = {
            str(label): float((single & contained[:, code])[codes == code].mean())
            for code, label in enumerate(head.classes_)
            if (codes == code).any()
        }
        found[test] = {**conformal.measured_sets(contained, codes), "recall": recalls}
    return found


def _codes(labels: np.ndarray, head: Any) -> np.ndarray:
    """The number of each label among the head's classes, `[N]`."""
    return np.searchsorted(head.classes_.astype(str), labels.astype(str))


def _targets(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray | None]:
    return rows["label"].to_numpy(), None if rows["category"].null_count() else rows["category"].to_numpy()
