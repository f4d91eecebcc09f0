"""Images whose label a probe contradicts that was not trained on them: candidates for a wrong label.

Confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
sections 3 and 4): out-of-sample probabilities, a threshold for each label, and a ranking by P(label).
"""

from typing import Any

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.manifest import Progress
from toolkit.data.split import Split, groups_of
from toolkit.errors import SelectionError
from toolkit.heads import fits, head_class, make_head
from toolkit.heads.base import BY_DEFAULT, fold_numbers, folds, usable_folds

COLUMNS = ("rank", "split", "path", "label", "category", "suggested", "p_label", "p_suggested", "suspect", "sha256")
"""`rank` counts within a split. `suggested` is the most likely label, `suspect` whether it is confidently another."""


def find(
    split: Split, cache: Cache, head: str, left_out: str, on_progress: Progress = lambda done, total: None
) -> pl.DataFrame:
    """The training and test images of `split` with `COLUMNS`; train first, in each split the most suspicious first.

    A training image is scored by a head that was fitted without its category (`left_out` = `category`) or without its
    random fifth (`folds`); copies of an image are left out together. A test image is scored by a head fitted on all
    training images. Raises SelectionError for a head that does not learn from images alone or cannot read the vectors.
    """
    _require_probe(head, cache)
    labels = split.train["label"].unique().sort().to_list()
    tests = pl.concat(list(split.tests().values())).filter(pl.col("label").is_in(labels))  # new labels are unknown
    train = _scored_left_out(split, cache, head, left_out, on_progress)
    fitted = _fitted(split.train, cache, head, left_out, split.seed)
    of_tests = fitted.predict_proba(cache.read_images(tests["sha256"].to_list()))
    return pl.concat([_ranked(split.train, train, labels), _ranked(tests, of_tests, labels)])


def _require_probe(head: str, cache: Cache) -> None:
    made = head_class(head)
    if made.needs_prompts or not made.learns or not fits(head, cache.record):
        raise SelectionError(
            f"{head} is no probe on the vectors of {cache.record.name} {cache.record.model}, so it cannot tell what "
            "the other images say: --head takes lda, logreg, layer-probes or knn."
        )


def _fitted(rows: pl.DataFrame, cache: Cache, head: str, left_out: str, seed: int) -> Any:
    made = make_head(head, {}, left_out, seed, blocks=cache.record.blocks)
    return made.fit(cache.read_images(rows["sha256"].to_list()), rows["label"].to_numpy(), groups_of(rows))


def _scored_left_out(split: Split, cache: Cache, head: str, left_out: str, on_progress: Progress) -> np.ndarray:
    """P of each label `[N, labels]` for the training images, each from a head fitted without its fold."""
    rows = split.train
    numbers, how = fold_numbers(rows["label"].to_numpy(), groups_of(rows), left_out, split.seed)
    if how == BY_DEFAULT:
        raise SelectionError("A label has one training image alone, which no other image can contradict: add images.")
    _, first, copies = np.unique(rows["sha256"].to_numpy(), return_index=True, return_inverse=True)
    codes, numbers = np.unique(rows["label"].to_numpy(), return_inverse=True)[1], numbers[first][copies]
    parts = list(folds(numbers))
    if len(usable_folds(codes, numbers)) < len(parts):
        raise SelectionError(
            "All training images of a label are copies of each other, or are left out together, so that no other image "
            "can contradict them: add images, or take the other --leave-out."
        )
    found = np.empty((len(rows), rows["label"].n_unique()))
    for done, (inside, out) in enumerate(parts):
        on_progress(done, len(parts))
        fitted = _fitted(rows[inside], cache, head, left_out, split.seed)
        found[out] = fitted.predict_proba(cache.read_images(rows["sha256"][out].to_list()))
    return found


def _ranked(rows: pl.DataFrame, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """`rows` with what `probabilities` `[N, labels]` say about their labels, the least likely label first.

    An image is a suspect where another label is the most likely one, and at least as likely as that label is on
    average among the images that bear it (Northcutt et al. 2021, equation 2).
    """
    codes, called = np.searchsorted(labels, rows["label"].to_numpy()), probabilities.argmax(axis=1)
    usual = np.array([probabilities[codes == code, code].mean() for code in range(len(labels))])
    each = np.arange(len(rows))
    suspect = (called != codes) & (probabilities[each, called] >= usual[called])
    told = rows.with_columns(
        suggested=pl.Series([labels[code] for code in called], dtype=pl.String),
        p_label=pl.Series(probabilities[each, codes]),
        p_suggested=pl.Series(probabilities[each, called]),
        suspect=pl.Series(suspect),
    )
    return told.sort("p_label", "path").with_row_index("rank", offset=1).select(COLUMNS)
