"""What left-out training categories say of a fitted head: how good it is, and which threshold they choose.

Such a score is honest only if nothing was trained on the rows that were left out, the encoder included.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.encoders.record import TrainedOn
from toolkit.heads import HEADS, Head, head_class
from toolkit.heads.base import LeftOut, fold_numbers

SEEN = "not chosen by category: the encoder trained on these images"
"""In `choice`: rows were left out of the head, but not of the encoder."""
BY_CATEGORY_OR_FOLDS = ("category", "folds")
BY_SEEN = " (seen)"
"""In `chosen_by`, behind `category` or `folds`: the same."""
LEAST = 1e-12
STEEPEST = 20.0
"""Bounds of the bias, in log odds."""


def choice_of(head: Head, trained_on: TrainedOn | None) -> dict[str, Any]:
    """A fitted head's `choice_`, and whether its left-out score is honest.

    An encoder's recipe may have chosen something by leaving rows out of fine-tuning; its log loss is that of a head
    that learns nothing. What a head that learns chose on rows that the encoder was trained on is marked by `SEEN`, its
    `by` by `BY_SEEN`, and its log loss becomes `log_loss_seen`.
    """
    if trained_on is None:
        return dict(head.choice_)
    of_recipe = trained_on.choice
    choice = {"by": of_recipe["by"], **head.choice_, "recipe": dict(of_recipe)} if of_recipe else dict(head.choice_)
    if of_recipe and not head.learns:
        return {**choice, "log_loss": of_recipe.get("log_loss")}
    by = {"by": f"{choice['by']}{BY_SEEN}"} if choice.get("by") in BY_CATEGORY_OR_FOLDS else {}
    seen = {"log_loss": None, "log_loss_seen": choice["log_loss"]} if "log_loss" in choice else {}
    return {**choice, **by, **seen, "left_out": SEEN}


def honest_log_loss(choice: Mapping[str, Any], head: str, trained_on: TrainedOn | None) -> float | None:
    """The log loss on left-out training rows in a head's `choice`; None if there is none, or if the encoder was trained
    on these rows. Rows of earlier versions are read, too."""
    learns = head not in HEADS or head_class(head).learns
    if trained_on is not None and learns:
        return None
    loss = choice.get("log_loss", choice.get("recipe", {}).get("log_loss"))
    return None if loss is None else float(loss)


def threshold(left_out: LeftOut, positive: np.ndarray, column: int) -> dict[str, float]:
    """The threshold of P(`column`) that left-out rows choose, and what it is worth to them.

    A bias is added to the log odds, the one with the lowest log loss on the left-out rows (Platt scaling with slope 1):
    `threshold` is the P whose biased P is a half. `log_loss_with_bias` is the mean over the folds, each with the bias
    of the others, so that it can be compared with the head's own `log_loss`. `positive` `[N]` bool says which training
    rows have the label.
    """
    p = np.clip(left_out.probabilities[:, column], LEAST, 1 - LEAST)
    odds, truth = np.log(p / (1 - p)), positive[left_out.rows]
    losses = []
    for number in np.unique(left_out.folds):
        out = left_out.folds == number
        rest = _bias(odds[~out], truth[~out]) if not out.all() else 0.0
        losses.append(_loss(odds[out] + rest, truth[out]))
    at = 1 / (1 + np.exp(_bias(odds, truth)))
    return {"threshold": round(float(at), 6), "log_loss_with_bias": round(float(np.mean(losses)), 4)}


def _bias(odds: np.ndarray, truth: np.ndarray) -> float:
    """The number to add to log odds `[N]` for the lowest log loss."""
    from scipy.optimize import minimize_scalar

    bounds = (-STEEPEST, STEEPEST)
    return float(minimize_scalar(lambda bias: _loss(odds + bias, truth), bounds=bounds, method="bounded").x)


def _loss(odds: np.ndarray, truth: np.ndarray) -> float:
    return float(np.logaddexp(0, np.where(truth, -odds, odds)).mean())


def said(
    head: Head, vectors: np.ndarray, y: np.ndarray, groups: np.ndarray | None, labels: Sequence[str], by: str, seed: int
) -> dict[str, Any]:
    """What to add to the choice of a head on an encoder that was not trained on these rows: the log loss of one that
    learns nothing, and with two `labels` the `threshold` of P(second label)."""
    classes = [str(one) for one in head.classes_]
    found: dict[str, Any] = {}
    left_out: LeftOut | None = getattr(head, "left_out_", None)
    if not head.learns:
        left_out = LeftOut(np.arange(len(y)), fold_numbers(y, groups, by, seed)[0], head.predict_proba(vectors))
        found["log_loss"] = round(left_out.log_loss(np.searchsorted(head.classes_, y)), 4)
    if left_out is not None and len(labels) == 2:
        found |= threshold(left_out, y == labels[1], classes.index(labels[1]))
    return found
