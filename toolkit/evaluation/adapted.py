"""Rows adapted to the unlabelled test images: the threshold is moved until a label has the share that is assumed of it.

This is transductive: it sees the features of the whole test batch, though no label, and it believes what it is told
about their share. So its rows are of a kind of their own (`columns.ADAPTED`), and no other row is set against them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from toolkit.data.labels import Labels, says_real, some
from toolkit.errors import SelectionError, did_you_mean
from toolkit.evaluation import columns

LEAST = 1e-12


@dataclass(frozen=True)
class Share:
    """The share of the test images, between 0 and 1, that `label` is assumed to have."""

    label: str
    share: float

    def __str__(self) -> str:
        return f"{self.label}={self.share:g}"

    @classmethod
    def of(cls, labels: Labels, said: str | None = None, of_real: float | None = None) -> "Share":
        """The share of `LABEL=SHARE`, or that of the label that means real; a half if nothing is said.

        Raises SelectionError for other than two labels, for an unknown label, and for a share outside 0 and 1.
        """
        if len(labels) != 2 or labels.positive is None:
            raise SelectionError(f"--adapt moves the threshold between two labels; these are {some(labels.names)}.")
        if of_real is not None and not says_real(labels.positive):
            name = f"--share {labels.positive}={of_real:g}"
            raise SelectionError(f"--real-share: none of the labels {some(labels.names)} says real. Say {name}.")
        label, _, number = (said or "").rpartition("=")
        if said is None:
            return cls._checked(labels, labels.positive, 0.5 if of_real is None else of_real)
        try:
            return cls._checked(labels, label.strip(), float(number))
        except ValueError:
            raise SelectionError(f"--share {said!r} is not LABEL=SHARE, as in {labels.positive}=0.3.") from None

    @classmethod
    def _checked(cls, labels: Labels, label: str, share: float) -> "Share":
        if label not in labels.names:
            guess = did_you_mean(label, labels.names)
            raise SelectionError(f"--share: {label!r} is none of the labels {some(labels.names)}.{guess}")
        if not 0 < share < 1:
            raise SelectionError(f"--share: the share of {label} lies between 0 and 1, as in {label}=0.3.")
        return cls(label, share)


def log_odds(p: np.ndarray) -> np.ndarray:
    """P `[N]` -> log odds `[N]`, finite."""
    p = np.clip(p, LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)))


def line(odds: np.ndarray, share: float) -> float:
    """The log odds with so many of `odds` `[N]` above it that they are the nearest number to `share` of N: halfway
    between the two neighbours; of equal ones all are on one side."""
    above = round(share * len(odds))
    ordered = np.pad(np.sort(odds)[::-1], 1, mode="edge") + [1.0, *[0.0] * len(odds), -1.0]
    return float(ordered[above : above + 2].mean())


def adapted(predictions: pl.DataFrame, labels: Labels, share: Share) -> pl.DataFrame:
    """The rows of `predictions` (`columns.PREDICTIONS`, of two labels) once more, adapted: each scored test set by
    itself. All log odds of a set are moved by one number, so its ranking stays."""
    found = list(_each(predictions, labels, share))
    return pl.concat(found) if found else predictions.clear()


def _each(predictions: pl.DataFrame, labels: Labels, share: Share) -> Iterator[pl.DataFrame]:
    column = labels.names.index(share.label)
    for _, group in predictions.group_by(columns.KEY, maintain_order=True):
        odds = log_odds(group["probabilities"].list.get(column).to_numpy())
        p = 1 / (1 + np.exp(line(odds, share.share) - odds))
        both = np.stack([p, 1 - p] if column == 0 else [1 - p, p], axis=1)
        called = np.array(labels.names)[(both[:, 1] > both[:, 0]).astype(int)]
        right = both[np.arange(len(both)), (group["label"] == labels.names[1]).cast(pl.Int8).to_numpy()]
        yield group.with_columns(
            pl.Series("predicted", called, dtype=pl.String),
            pl.Series("p_real", both[:, 1]),
            pl.Series("probabilities", both, dtype=pl.Array(pl.Float64, 2)).arr.to_list(),
            pl.Series("p_predicted", both.max(axis=1)),
            pl.Series("p_label", right),
            pl.lit(str(share)).alias(columns.ADAPTED),
        ).select(predictions.columns)
