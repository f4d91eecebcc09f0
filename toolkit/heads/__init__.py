"""Heads: classifiers from vectors to P(label). Each has a file of its own, and a line in `HEADS` and in `WORDS`.

Every head takes raw vectors `[N, D]` float32 and scales them to unit length itself if it needs to. Hyperparameters are
chosen by cross-validation inside the training rows; `choice_` records what was chosen and how. Heads are imported when
they are first used.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any, ClassVar, Protocol

import numpy as np

from toolkit.encoders.record import EncoderRecord
from toolkit.errors import SelectionError, did_you_mean

HEADS = {
    "zero-shot": "zero_shot.ZeroShot",
    "logreg": "logreg.LogisticProbe",
    "lda": "lda.DiscriminantAnalysis",
    "layer-probes": "layer_probes.LayerProbes",
    "knn": "knn.NearestNeighbours",
    "tip-adapter": "tip_adapter.TipAdapter",
    "clap": "clap.ClassAdaptiveProbe",
    "cnn": "cnn.SmallCNN",
    "shortcut": "shortcut.Shortcut",
}
"""Each head's name, and its class in this package. Tables list heads in this order."""

WORDS = {
    "zero-shot": "the prompts alone",
    "logreg": "a logistic regression",
    "lda": "a linear discriminant analysis",
    "layer-probes": "a probe on each layer",
    "knn": "the nearest training images",
    "tip-adapter": "the prompts with the nearest training images",
    "clap": "a probe that starts from the prompts",
    "cnn": "a small network on pixels",
    "shortcut": "a tree on facts of the file",
}
"""What each head is, for people who do not know its name."""


class Head(Protocol):
    """A classifier in scikit-learn's manner.

    `reads` names the kinds of vectors it can be fitted on (`encoders.record.Sees`), `needs_prompts` whether it compares
    images with prompts, `learns` whether its predictions depend on training images. A head that learns has a `log_loss`
    in `choice_`, and after `fit` `left_out_` (`base.LeftOut`), which is not stored. `parameters_`, if it is there, is
    the number of parameters that were trained (what cross-validation chooses is none). Its constructor may take any of
    `prompts`, `choose_by`, `seed`, `blocks`, `temperature` and `margin`; `make_head` passes those that it takes.
    """

    reads: ClassVar[frozenset[str]]
    needs_prompts: ClassVar[bool]
    learns: ClassVar[bool]
    classes_: np.ndarray
    choice_: Mapping[str, Any]

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "Head":
        """Fit on `X` `[N, D]` float32 and labels `y` `[N]`; `groups` `[N]` define the folds of cross-validation."""
        ...

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64, in the order of `classes_`."""
        ...


def head_class(name: str) -> type[Head]:
    """The class of a head. Raises SelectionError for a name that is not in `HEADS`."""
    check_names([name])
    module, _, of_class = HEADS[name].partition(".")
    found: type[Head] = getattr(import_module(f"{__name__}.{module}"), of_class)
    return found


def fits(name: str, record: EncoderRecord) -> bool:
    """Whether the head can be fitted on this encoder's vectors."""
    head = head_class(name)
    return record.sees in head.reads and (record.has_text or record.has_label_vectors or not head.needs_prompts)


def check_names(names: Sequence[str]) -> list[str]:
    """The names without repetitions. Raises SelectionError for a name that is not in `HEADS`, or for no names."""
    takes = f"--heads takes {', '.join(HEADS)}"
    unknown = next((name for name in names if name not in HEADS), None)
    if unknown is not None:
        raise SelectionError(f"There is no head {unknown!r}.{did_you_mean(unknown, HEADS)} {takes}.")
    if not names:
        raise SelectionError(f"No head is named: {takes}.")
    return list(dict.fromkeys(names))


def make_head(
    name: str,
    prompts: Mapping[str, np.ndarray],
    choose_by: str = "category",
    seed: int = 0,
    choice: Mapping[str, Any] | None = None,
    blocks: tuple[int, ...] = (),
) -> Any:
    """A new head by its name.

    `prompts` maps each label to its prompts' vectors `[P, D]`; only some heads use them. `choose_by` is `category` or
    `folds`, `seed` the random seed. `choice` is what the encoder's recipe chose (`TrainedOn.choice`), if anything: a
    temperature and a margin. `blocks` are the numbers of columns of the encoder's blocks, if its vectors are blocks.
    Raises SelectionError for a name that is not in `HEADS`.
    """
    head = head_class(name)
    given = {"prompts": prompts, "choose_by": choose_by, "seed": seed, "blocks": blocks, **(choice or {})}
    return head(**{key: given[key] for key in signature(head).parameters if key in given})
