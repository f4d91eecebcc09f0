"""Heads: from embeddings to P(label). One file a head, one line here, the manners of scikit-learn.

Every head takes raw embeddings `[N, D]` float32 and brings them to unit length itself. What it has to choose it chooses
inside the rows that it is fitted on; `choice_` says what and how.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from toolkit.errors import SelectionError
from toolkit.heads.knn import NearestNeighbours
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.zero_shot import ZeroShot

Prompts = Mapping[str, np.ndarray]

HEADS: dict[str, Callable[[Prompts, str], Any]] = {
    "zero-shot": lambda prompts, choose_by: ZeroShot(prompts),
    "logreg": lambda prompts, choose_by: LogisticProbe(choose_by),
    "knn": lambda prompts, choose_by: NearestNeighbours(choose_by),
}


def make_head(name: str, prompts: Prompts, choose_by: str = "category") -> Any:
    """A new head by its name. `prompts` maps each label to its prompts' vectors `[P, D]`; only some heads look at them.

    Raises SelectionError for a name that is not in `HEADS`.
    """
    if name not in HEADS:
        raise SelectionError(f"There is no head {name!r}: --heads takes {', '.join(HEADS)}.")
    return HEADS[name](prompts, choose_by)
