"""Training-free Tip-Adapter (Zhang et al. 2022, section 3.1): zero-shot, plus a cache of labelled training images.

Each training image votes for its class with `exp(-beta (1 - cos))`; the votes, times `alpha`, are added to the logits
of the prompts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from toolkit.encoders.record import Sees
from toolkit.heads.base import LeftOut, Tried, at_edge, fold_numbers, log_loss, softmax, unit, usable_folds
from toolkit.heads.classifier import Classifier
from toolkit.heads.zero_shot import ZeroShot

SHARPNESSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Values of beta, each twice the previous one, so that the votes for it are the squares of the previous votes."""
SHARES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Values of `alpha` times the mean number of images per class, so that a larger cache has no more weight."""
DEFAULT = {"alpha": 1.0, "beta": 5.5}
"""The paper's values, used if cross-validation is impossible. They hold for its temperature, `PAPERS_TEMPERATURE`."""
PAPERS_TEMPERATURE = 0.01
MOST_QUERIES = 5_000
VALUES_AT_ONCE = 1 << 24
"""The most votes in memory at once: 64 MiB."""


class TipAdapter(Classifier):
    """The prompts' logits plus `alpha` times the votes of the training images.

    `alpha` and `beta` are those with the lowest mean log loss over the held-out folds: up to `MOST_QUERIES` images are
    classified with the images of the other folds as cache. With `alpha` 0 it equals `zero-shot`, whose `prompts`,
    `temperature` and `margin` it takes. `choice_` has the `alpha` for the whole cache.
    """

    reads = frozenset({Sees.LAST_LAYER})
    needs_prompts = True
    learns = True
    parameters_ = 0

    def __init__(
        self,
        prompts: Mapping[str, np.ndarray] | None = None,
        temperature: float = 0.07,
        margin: float = 0.0,
        choose_by: str = "category",
        seed: int = 0,
    ):
        self.prompts = prompts
        self.temperature = temperature
        self.margin = margin
        self.choose_by = choose_by
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "TipAdapter":
        """Keep `X` `[N, D]` with `y` `[N]`; `groups` `[N]` are the categories, the folds that choose.

        Raises ValueError if `y` contains a class without prompts.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.zero_shot_ = ZeroShot(self.prompts, self.temperature, self.margin).fit(X, y)
        self.classes_ = self.zero_shot_.classes_
        self.vectors_, self.codes_ = unit(X), np.searchsorted(self.classes_, y)
        numbers, how = fold_numbers(self.codes_, groups, self.choose_by, self.seed)
        self.choice_: dict[str, Any] = {**self._choose(numbers), "by": how}
        return self

    def _choose(self, numbers: np.ndarray) -> dict[str, Any]:
        """The `alpha` and `beta` with the lowest mean log loss over the folds, and that loss. Sets `left_out_`."""
        usable = list(self._some(usable_folds(self.codes_, numbers)))
        self.left_out_ = None
        if not usable:
            return {**DEFAULT, "alpha": DEFAULT["alpha"] * PAPERS_TEMPERATURE / self.temperature, "log_loss": None}
        mean = np.mean([self._losses(fitting, out) for fitting, out in usable], axis=0)
        sharpness, share = np.unravel_index(mean.argmin(), mean.shape)
        alpha = SHARES[share] * len(self.classes_) / len(self.codes_)
        beta = SHARPNESSES[sharpness]
        left_out = [self._left_out(fitting, out, SHARES[share], beta) for fitting, out in usable]
        self.left_out_ = LeftOut.of([out for _, out in usable], left_out)
        edge = at_edge(
            Tried("alpha by images a class", SHARES[share], SHARES, natural=0),
            *([Tried("beta", beta, SHARPNESSES)] if alpha else []),  # without votes their sharpness means nothing
        )
        return {"alpha": alpha, "beta": beta, "log_loss": round(float(mean.min()), 4), **edge}

    def _left_out(self, fitting: np.ndarray, out: np.ndarray, share: float, beta: float) -> np.ndarray:
        """P `[O, classes]` of the rows `out`, with the rows `fitting` as cache. Votes for one sharpness are quick to
        count again, and those for all of them are too many to keep."""
        votes = _votes(self.vectors_[out], self.vectors_[fitting], self.codes_[fitting], len(self.classes_), (beta,))[0]
        alpha = share * len(self.classes_) / len(fitting)
        return softmax(self.zero_shot_.logits(self.vectors_[out]) + alpha * votes)

    def _some(self, folds: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The folds, with a random sample of their held-out rows: `MOST_QUERIES` in total."""
        rng = np.random.default_rng(self.seed)
        for fitting, out in folds:
            most = max(1, MOST_QUERIES * len(out) // len(self.codes_))
            yield fitting, out if len(self.codes_) <= MOST_QUERIES else np.sort(rng.choice(out, most, replace=False))

    def _losses(self, fitting: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The log losses `[SHARPNESSES, SHARES]` on the rows `out`, with the rows `fitting` as cache."""
        keys, codes = self.vectors_[fitting], self.codes_[fitting]
        prompts, losses = self.zero_shot_.logits(self.vectors_[out]), []
        for votes in _votes(self.vectors_[out], keys, codes, len(self.classes_), SHARPNESSES):
            alphas = [share * len(self.classes_) / len(fitting) for share in SHARES]
            losses.append([log_loss(softmax(prompts + alpha * votes), self.codes_[out]) for alpha in alphas])
        return np.array(losses)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """`[N, D]` -> `[N, classes]` float64."""
        check_is_fitted(self)
        X = unit(validate_data(self, X, dtype=np.float32, reset=False))
        votes = _votes(X, self.vectors_, self.codes_, len(self.classes_), (self.choice_["beta"],))[0]
        return softmax(self.zero_shot_.logits(X) + self.choice_["alpha"] * votes)


def _votes(
    queries: np.ndarray, keys: np.ndarray, codes: np.ndarray, classes: int, sharpnesses: tuple[float, ...]
) -> np.ndarray:
    """The votes `[sharpnesses, Q, classes]` float64 of `keys` `[N, D]` with class numbers `codes` `[N]` for queries
    `[Q, D]`, all of unit length. Each sharpness must be twice the previous one."""
    belongs = (codes[:, None] == np.arange(classes)).astype(np.float32)
    votes = np.empty((len(sharpnesses), len(queries), classes))
    at_once = max(1, VALUES_AT_ONCE // len(keys))
    for start in range(0, len(queries), at_once):
        some = slice(start, start + at_once)
        powers = np.exp(sharpnesses[0] * (queries[some] @ keys.T - 1))
        for number in range(len(sharpnesses)):
            powers = powers * powers if number else powers
            votes[number, some] = powers @ belongs
    return votes
