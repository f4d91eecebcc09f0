"""Heads: from embeddings to P(label). One file a head, one line here, the manners of scikit-learn.

Every head takes raw embeddings `[N, D]` float32 and brings them to unit length itself. What it has to choose it chooses
inside the rows that it is fitted on; `choice_` says what and how.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.errors import SelectionError, did_you_mean
from toolkit.heads.knn import NearestNeighbours
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.zero_shot import ZeroShot

Prompts = Mapping[str, np.ndarray]

HEADS: dict[str, Callable[[Prompts, str], Any]] = {
    "zero-shot": lambda prompts, choose_by: ZeroShot(prompts),
    "logreg": lambda prompts, choose_by: LogisticProbe(choose_by),
    "knn": lambda prompts, choose_by: NearestNeighbours(choose_by),
}


def check_names(names: Sequence[str]) -> list[str]:
    """The names, each once. Raises SelectionError for one that is not in `HEADS`, or where there is none."""
    takes = f"--heads takes {', '.join(HEADS)}"
    unknown = next((name for name in names if name not in HEADS), None)
    if unknown is not None:
        raise SelectionError(f"There is no head {unknown!r}.{did_you_mean(unknown, HEADS)} {takes}.")
    if not names:
        raise SelectionError(f"No head is named: {takes}.")
    return list(dict.fromkeys(names))


def make_head(name: str, prompts: Prompts, choose_by: str = "category") -> Any:
    """A new head by its name. `prompts` maps each label to its prompts' vectors `[P, D]`; only some heads look at them.

    Raises SelectionError for a name that is not in `HEADS`.
    """
    check_names([name])
    return HEADS[name](prompts, choose_by)
