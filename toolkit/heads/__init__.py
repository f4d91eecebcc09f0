"""Heads: from embeddings to P(label). One file a head, one line here, the manners of scikit-learn.

Every head takes raw embeddings `[N, D]` float32 and brings them to unit length itself, but for those in `READS`, which
take other numbers of an image. What it has to choose it chooses inside the rows that it is fitted on; `choice_` says
what and how.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.encoders.blocks import KIND as BLOCKS
from toolkit.encoders.features import FEATURES, FileFacts, Pixels
from toolkit.errors import SelectionError, did_you_mean
from toolkit.heads.cnn import SmallCNN
from toolkit.heads.knn import NearestNeighbours
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.shortcut import Shortcut
from toolkit.heads.zero_shot import ZeroShot

Prompts = Mapping[str, np.ndarray]

HEADS: dict[str, Callable[[Prompts, str], Any]] = {
    "zero-shot": lambda prompts, choose_by: ZeroShot(prompts),
    "logreg": lambda prompts, choose_by: LogisticProbe(choose_by),
    "knn": lambda prompts, choose_by: NearestNeighbours(choose_by),
    "cnn": lambda prompts, choose_by: SmallCNN(choose_by),
    "shortcut": lambda prompts, choose_by: Shortcut(choose_by),
}

READS = {"cnn": Pixels.kind, "shortcut": FileFacts.kind}
"""The heads that look at something else than embeddings, and at what (`toolkit.encoders.features`)."""


def fits(name: str, kind: str) -> bool:
    """Whether the head looks at what an encoder of this `kind` (in its record) gives. Blocks have no prompts."""
    if name in READS:
        return READS[name] == kind
    return kind not in FEATURES and not (name == "zero-shot" and kind == BLOCKS)


def check_names(names: Sequence[str]) -> list[str]:
    """The names, each once. Raises SelectionError for one that is not in `HEADS`, or where there is none."""
    takes = f"--heads takes {', '.join(HEADS)}"
    unknown = next((name for name in names if name not in HEADS), None)
    if unknown is not None:
        raise SelectionError(f"There is no head {unknown!r}.{did_you_mean(unknown, HEADS)} {takes}.")
    if not names:
        raise SelectionError(f"No head is named: {takes}.")
    return list(dict.fromkeys(names))


def make_head(
    name: str,
    prompts: Prompts,
    choose_by: str = "category",
    seed: int = 0,
    choice: Mapping[str, Any] | None = None,
) -> Any:
    """A new head by its name. `prompts` maps each label to its prompts' vectors `[P, D]`; only some heads look at them.
    `seed` decides what is random in it, if anything is.

    `choice` is what the encoder's recipe chose (`choice` of its record, if it has one): zero-shot reads P as it says.

    Raises SelectionError for a name that is not in `HEADS`.
    """
    check_names([name])
    head = HEADS[name](prompts, choose_by)
    if choice and isinstance(head, ZeroShot):
        head.set_params(temperature=choice["temperature"], margin=choice["margin"])
    return head.set_params(seed=seed) if "seed" in head.get_params() else head
