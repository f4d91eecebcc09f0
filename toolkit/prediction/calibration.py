"""When a kept head should abstain, and where its line lies: decided on training images alone, measured on test images.

A head that was fitted on an image says nothing about how it does on new ones. So `abstaining` fits it anew on three
quarters of the training images and calibrates on the rest, and `operating_point` takes each training image's score
from a head that was fitted without its category.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sklearn.base import clone

from toolkit.cache.store import Cache
from toolkit.data.labels import some
from toolkit.errors import SelectionError, did_you_mean
from toolkit.heads.base import fold_numbers, folds
from toolkit.prediction import conformal, kept_heads
from toolkit.prediction.kept_heads import KeptHead

CALIBRATION_SHARE = 0.25

Progress = Callable[[str, int, int], None]
Answers = Callable[[np.ndarray], np.ndarray]
"""`[N, labels]` probabilities -> `[N, labels]` bool: which labels an answer leaves open; exactly one is an answer."""


@dataclass(frozen=True)
class Rule:
    """How probabilities become answers. `head` gives the probabilities, `measured` says what that does on each test
    set, `note` states in words what is promised and what is not; `abstains` whether images may go without an answer."""

    head: Any
    answers: Answers
    note: str
    measured: dict[str, dict[str, Any]]
    abstains: bool = False


def likelier(head: Any) -> Rule:
    """The likelier label wins; of two equally likely ones, the first."""
    return Rule(head, lambda odds: np.eye(odds.shape[1], dtype=bool)[odds.argmax(axis=1)], "", {})


@dataclass(frozen=True)
class Fresh:
    """Labelled images that trained neither the head nor its encoder: vectors `[N, D]`, labels `[N]`, data's name."""

    vectors: np.ndarray
    labels: np.ndarray
    name: str


def abstaining(about: KeptHead, head: Any, cache: Cache, alpha: float, fresh: Fresh | None = None) -> Rule:
    """Answer only where the conformal set holds a single label.

    Without `fresh`, the training images (each content once) are split at random within each label; a copy of `head`
    with the same settings is fitted and makes its choices on three quarters of them, and answers from then on; each
    label's limit is a conformal quantile of the rest (`conformal.thresholds`). With `fresh`, the limits are those of
    the fresh images, and `head` itself answers. What is guaranteed: if an image of a label is exchangeable with that
    label's calibration images, the chance that its set misses the label, and so that it is answered wrongly, is at most
    `alpha`, for each label alone. That is a share of all images, not of those that are answered. Nothing is guaranteed
    for images of another kind, nor where the encoder itself was trained on the calibration images, as a fine-tuned one
    was on the training images. Raises SelectionError for too few images, MissingEmbeddings where the cache lacks them.
    """
    if fresh:
        fitted, odds, codes = head, head.predict_proba(fresh.vectors), _codes(fresh.labels, head)
        how, alike = f"calibrated on {len(codes):,} images of {fresh.name} that trained nothing", "these"
    else:
        fitted, odds, codes, trained = _split(about, head, cache)
        how = f"fitted on {trained:,} training images and calibrated on {len(codes):,} others"
        alike = "the training images"
    limits = conformal.thresholds(odds, codes, alpha, list(head.classes_))
    note = (
        f"--alpha {alpha:g}: the head was {how}. Of each label's images at most {alpha:.1%} are answered wrongly, if "
        f"they are like {alike}."
    )
    if _saw_training(about) and not fresh:
        note += (
            " NOT guaranteed here: this encoder was fine-tuned on the calibration images too. See what was measured, "
            "calibrate on other images (--calibrate), or take --encoder base."
        )

    def answers(odds: np.ndarray) -> np.ndarray:
        return conformal.sets(odds, limits)

    return Rule(fitted, answers, note, _measured(about, fitted, answers, cache), abstains=True)


def _split(about: KeptHead, head: Any, cache: Cache) -> tuple[Any, np.ndarray, np.ndarray, int]:
    """A copy of `head` fitted on three quarters of the training images; the odds that it gives the rest and their
    labels' codes; and how many images it was fitted on."""
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
    progress: Progress,
    label: str | None = None,
) -> Rule:
    """Call an image of another label than `label` only where their P together is above a line that images of `label`
    stay below; of several others, the likeliest.

    Without a `label` it is the negative one of two, or FAKE. Without `fresh`, the line is drawn on the training images,
    each scored by a copy of `head` fitted without its category (or without its random fifth, where there are no
    categories), which is what an image of a new kind meets; with `fresh` on the fresh images. It is the conformal
    quantile of that label's scores, so that at least `recall` of new images of that label stay below it, if they are
    like these. The kept head answers. Raises what `abstaining` raises, and SelectionError for a label that the head
    does not know.
    """
    kept = _to_keep(about, label)
    classes = [str(one) for one in head.classes_]
    mine, others = classes.index(kept), [number for number, one in enumerate(classes) if one != kept]
    if fresh:
        odds, codes = head.predict_proba(fresh.vectors), _codes(fresh.labels, head)
        how = f"chosen on {len(codes):,} images of {fresh.name} that trained nothing"
    else:
        odds, codes, how = _odds_when_left_out(about, head, cache, progress)
    line = conformal.ranked(odds[codes == mine][:, others].sum(axis=1), recall, kept)

    def answers(odds: np.ndarray) -> np.ndarray:
        rest = odds[:, others]
        chosen = np.where(rest.sum(axis=1) > line, np.array(others)[rest.argmax(axis=1)], mine)
        return np.asarray(np.eye(len(classes), dtype=bool)[chosen])

    note = f"--recall {kept}={recall:g}: {_said(classes, others, line)}, {how}, so that at most {1 - recall:.2%} of "
    note += f"{kept} are called {classes[others[0]] if len(others) == 1 else 'something else'}."
    if _saw_training(about) and not fresh:
        note += " This encoder was fine-tuned on those images, so expect more: see what was measured, or --calibrate."
    return Rule(head, answers, note, _measured(about, head, answers, cache))


def _said(classes: list[str], others: list[int], line: float) -> str:
    if len(others) == 1:
        other = classes[others[0]]
        return f"{other} only where P({other}) is above {line:.4f}"
    return f"another label only where the others' P together is above {line:.4f}"


def _to_keep(about: KeptHead, label: str | None) -> str:
    """The label whose recall is promised."""
    labels = about.record.labels
    if label is None:
        label = labels.negative or "FAKE"
    if label not in labels.names:
        guess = did_you_mean(label, labels.names)
        raise SelectionError(f"The head knows no label {label!r}: --recall takes {some(labels.names)}.{guess}")
    return label


def _odds_when_left_out(
    about: KeptHead, head: Any, cache: Cache, progress: Progress
) -> tuple[np.ndarray, np.ndarray, str]:
    """`[N, labels]`: P of each training image by a copy of `head` that did not learn from its fold; their labels'
    codes; and in words which folds those were. Of two labels, P of the positive one is remembered."""
    rows = kept_heads.training_rows(about).unique("sha256", keep="first", maintain_order=True)
    vectors, (y, groups) = kept_heads.vectors_of(rows, cache), _targets(rows)
    _require_two_of_each(rows)
    numbers, how = fold_numbers(y, groups, "category", about.record.seed)
    known, count = kept_heads.remembered_scores(about), len(head.classes_)
    if known is not None:
        odds = _of_both(known, positive_of(about, head)) if count == 2 else known
    else:
        odds = np.empty((len(rows), count))
        for done, (fitting, out) in enumerate(folds(numbers)):
            progress("Scoring what was left out", done, int(numbers.max()) + 1)
            rest = None if groups is None else groups[fitting]
            odds[out] = clone(head).fit(vectors[fitting], y[fitting], rest).predict_proba(vectors[out])
        kept_heads.remember_scores(about, odds[:, positive_of(about, head)] if count == 2 else odds)
    what = "each category in its turn" if how == "category" else "a fifth at a time"
    return odds, _codes(y, head), f"chosen on training images, {what} left out"


def _require_two_of_each(rows: pl.DataFrame) -> None:
    """Raise SelectionError where a label has one training image alone: without it, nothing is known of the label."""
    alone = rows.group_by("label").len().filter(pl.col("len") < 2)["label"].sort().to_list()
    if alone:
        raise SelectionError(
            f"The head learned from one image alone of {some(alone)}, which cannot calibrate it as well: name new "
            "images (--calibrate), or compare on more (--train-per-label)."
        )


def _of_both(scores: np.ndarray, positive: int) -> np.ndarray:
    """P of one of two classes `[N]` -> of both `[N, 2]`."""
    return np.stack([scores, 1 - scores] if positive == 0 else [1 - scores, scores], axis=1)


def _saw_training(about: KeptHead) -> bool:
    """Whether the encoder itself was trained on the training images."""
    return about.record.encoder.trained_on is not None


def positive_of(about: KeptHead, head: Any) -> int:
    """Which of the head's classes is the positive label, whose probability is reported; there must be one."""
    return [str(label) for label in head.classes_].index(str(about.record.labels.positive))


def _held_back(codes: np.ndarray, seed: int) -> np.ndarray:
    """`[N]` bool: a quarter of each label, by chance."""
    rng = np.random.default_rng(seed)
    held_back = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        held_back[rng.permutation(rows)[: max(1, round(len(rows) * CALIBRATION_SHARE))]] = True
    return held_back


def _measured(about: KeptHead, head: Any, answers: Answers, cache: Cache) -> dict[str, dict[str, Any]]:
    """What the answers are worth on each test set whose vectors the cache holds."""
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
    """Which of the head's classes each label is, `[N]`."""
    return np.searchsorted(head.classes_.astype(str), labels.astype(str))


def _targets(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray | None]:
    return rows["label"].to_numpy(), None if rows["category"].null_count() else rows["category"].to_numpy()
