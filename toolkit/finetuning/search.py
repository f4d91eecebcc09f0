"""Fine-tuning, with settings chosen first by cross-validation inside the training images if the recipe asks for it.

The novel test measures an encoder on a category that it never saw. So the training categories are split into parts,
each part is held out of one training, and the settings with the lowest log loss on the held-out images are chosen.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from toolkit.cache.store import Cache
from toolkit.data.manifest import Dataset, Stages
from toolkit.data.split import groups_of
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import EncoderRecord, TrainedOn
from toolkit.errors import SelectionError
from toolkit.finetuning import checkpoints, cost, label_vectors
from toolkit.finetuning.checkpoints import Checkpoint
from toolkit.finetuning.interpolate import mix
from toolkit.finetuning.recipes import Recipe
from toolkit.finetuning.run import preparing
from toolkit.finetuning.training import describe, epochs, finetune, finish
from toolkit.storage import distributed
from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import write_record

if TYPE_CHECKING:
    import torch

PARTS = 3
MOST_SCORED = 1000
"""At most this many held-out images of a part are scored after an epoch, drawn at random."""
SLIGHTEST, STEEPEST = 0.1, 1000.0
"""Bounds of the inverse temperature in `scaled`; CLIP's own training limits it to 100."""
Setting = tuple[float, int, float]
Scores = dict[Setting, list[tuple[np.ndarray, np.ndarray]]]
"""For each setting and part: cosines (with two labels, their differences) and the numbers of the true labels."""


@dataclass(frozen=True)
class Training:
    """What an encoder is fine-tuned on, and how.

    `load` loads a fresh base encoder, whose record is `base`. `train` are the rows (columns path, label, group,
    sha256), none of them of `held_out`. Checkpoints are stored under `cache`."""

    base: EncoderRecord
    load: Callable[[], OpenClip]
    dataset: Dataset
    train: pl.DataFrame
    held_out: str
    prompts: Mapping[str, Sequence[str]]
    recipe: Recipe
    cache: Path
    progress: Stages

    @property
    def of_seed(self) -> str:
        """The seed for the stage names of the progress bar; empty for seed 0."""
        return f", seed {self.recipe.seed}" if self.recipe.seed else ""

    @cached_property
    def trained_on(self) -> TrainedOn:
        """What the encoder is trained on, and the checkpoint's key (`training.describe`)."""
        return describe(self.base, self.train, self.held_out, self.prompts, self.recipe)

    def start(self, rows: pl.DataFrame) -> OpenClip:
        """A fresh base encoder to train on `rows`; without text, with label vectors from a probe on these rows."""
        encoder = self.load()
        if not self.base.has_text:
            label_vectors.add(encoder, Cache(self.cache, self.base), rows, self.recipe)
        return encoder

    @property
    def folder(self) -> Path:
        """The folder of its checkpoint, whether or not it exists."""
        return checkpoints.folder_of(self.cache, self.trained_on.checkpoint)


def make(training: Training) -> Checkpoint:
    """Fine-tune as the recipe says: plainly, interpolated, or with settings chosen first.

    Resumes where it was interrupted. Raises what `training.finetune` raises.
    """
    if training.recipe.grid is not None:
        return _chosen(training)
    if training.recipe.alpha != 1:
        return _interpolated(training)
    stage = f"Fine-tuning without {training.held_out}{training.of_seed}"
    return finetune(
        training.start(training.train),
        training.dataset,
        training.train,
        training.held_out,
        training.prompts,
        training.recipe,
        training.cache,
        lambda done, total, _: training.progress(stage, done, total),
    )


def _interpolated(training: Training) -> Checkpoint:
    """Interpolate between the base and the encoder trained with `alpha` 1, whose checkpoint is kept."""
    whole = make(replace(training, recipe=replace(training.recipe, alpha=1.0)))
    mixed = mix(training.start(training.train).model.state_dict(), checkpoints.weights(whole), training.recipe.alpha)
    cost.write(training.folder, cost.read(whole.folder))
    return finish(training.folder, mixed, replace(whole.record, trained_on=training.trained_on))


def _chosen(training: Training) -> Checkpoint:
    """Choose the settings, then train on every row with them, or take that checkpoint if it exists."""
    choice, parts = choose(training, training.folder)
    named = {name: choice[name] for name in ("learning_rate", "epochs", "alpha")}
    last = make(replace(training, recipe=replace(training.recipe, grid=None, **named)))
    trained_on = replace(training.trained_on, choice=choice)
    cost.note_choosing(training.folder, last.folder, parts)
    return finish(training.folder, checkpoints.weights(last), replace(last.record, trained_on=trained_on))


def choose(training: Training, folder: Path) -> tuple[dict[str, Any], list[float | None]]:
    """The setting of the recipe's grid with the lowest log loss on held-out images, with the calibration fitted on
    them; and the wall seconds of each part of the search (None for one of an earlier version).

    `learning_rate`, `epochs` and `alpha` are the setting. `temperature` and `margin` turn cosines into P: `platt` for
    two labels, `scaled` (without margin) for more. `by` is `category` if whole categories were held out, else `folds`.
    Each part's scores are stored in `folder`, so that each part is trained only once.
    """
    recipe = training.recipe.for_model(training.base.model)
    assert recipe.grid is not None and recipe.learning_rate is not None
    numbers, how = parts_of(training.train, recipe.choose_by, recipe.seed)
    if len(np.unique(numbers)) < 2:
        raise SelectionError(
            "A label has one training image alone, so that none can be left out to choose by: train on more "
            "(--train-per-label, --shots), or without --choose."
        )
    scores: Scores = {}
    seconds: list[float | None] = []
    for factor in recipe.grid.learning_rates:
        rate = factor * recipe.learning_rate
        for part in np.unique(numbers):
            path = folder / f"part-{part}-lr-{rate:g}.json"
            again = "this part is trained and scored again"
            record = record_if_whole(path, again) or _score_part(
                training, replace(recipe, learning_rate=rate), numbers == part, path
            )
            codes = np.array(record["codes"] if "codes" in record else record["second"], dtype=np.int64)
            seconds.append(record.get("seconds"))
            for epoch, alpha, cosines in record["scores"]:
                scores.setdefault((rate, epoch, alpha), []).append((np.array(cosines), codes))
    return {**_best(scores), "by": how}, seconds


def parts_of(train: pl.DataFrame, choose_by: str, seed: int) -> tuple[np.ndarray, str]:
    """The part `[N]` int64 in which each training row is held out: every third category, or random thirds; and which
    of the two (`category`, `folds`)."""
    from toolkit.heads.base import fold_numbers  # scikit-learn takes a second to import

    groups = groups_of(train)
    if groups is not None:
        groups = (np.unique(groups.astype(str), return_inverse=True)[1] % PARTS).astype(str)
    return fold_numbers(train["label"].to_numpy(), groups, choose_by, seed, PARTS)


def _score_part(training: Training, recipe: Recipe, left_out: np.ndarray, path: Path) -> dict[str, Any]:
    """Train without a part and score it after each epoch of the grid -> a record, also written to `path`."""
    grid, began = recipe.grid, time.perf_counter()
    assert grid is not None
    fitting, out = training.train.filter(~left_out), _some(training.train.filter(left_out), recipe.seed)
    encoder = training.start(fitting)
    last = max(grid.epochs)
    plain = replace(recipe, grid=None, epochs=last)
    stage = f"Choosing for {training.held_out}{training.of_seed}, {path.stem}"
    base = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    pixels = np.stack([*map(preparing(encoder, training.dataset, out), range(len(out)))])
    scores = []
    steps = epochs(
        encoder, training.dataset, fitting, training.prompts, plain, lambda d, t, _: training.progress(stage, d, t)
    )
    for epoch, tuned in enumerate(steps, start=1):
        if epoch in grid.epochs:
            mixed = ((alpha, mix(base, tuned, alpha)) for alpha in grid.alphas)
            scores += [(epoch, alpha, _cosines(encoder, one, pixels, training.prompts)) for alpha, one in mixed]
    codes = np.searchsorted(sorted(training.prompts), out["label"].to_list())
    took = time.perf_counter() - began
    record = {"scores": scores, "codes": codes.tolist(), "grid": asdict(grid), "seconds": took}
    if distributed.rank() == 0:
        write_record(path, record)
    return record


def _some(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    return rows if len(rows) <= MOST_SCORED else rows.sample(MOST_SCORED, seed=seed)


def _cosines(
    encoder: OpenClip, weights: "Mapping[str, torch.Tensor]", pixels: np.ndarray, prompts: Mapping[str, Sequence[str]]
) -> list[Any]:
    """The cosines of each image to each label's prompts (labels sorted) under other `weights`; with two labels, the
    second's cosine minus the first's. The encoder's own weights are restored."""
    from toolkit.heads.zero_shot import ZeroShot

    own = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    encoder.model.load_state_dict(weights)
    texts = {label: encoder.embed_prompts(list(each)) for label, each in prompts.items()}
    head, size = ZeroShot(texts).fit(pixels[:1], np.array([next(iter(prompts))])), encoder.batch_size
    vectors = [encoder.embed_images(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    encoder.model.load_state_dict(own)
    cosines = head.cosines(np.concatenate(vectors))
    if len(prompts) > 2:
        return [[round(value, 6) for value in row] for row in cosines.tolist()]
    return [round(float(value), 6) for value in cosines[:, 1] - cosines[:, 0]]


def _best(scores: Scores) -> dict[str, Any]:
    """The setting with the lowest log loss over all parts; each setting is scored with its own calibration."""
    found = []
    for (rate, epoch, alpha), parts in scores.items():
        cosines, codes = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        temperature, margin, loss = platt(cosines, codes == 1) if cosines.ndim == 1 else scaled(cosines, codes)
        setting = {"learning_rate": rate, "epochs": epoch, "alpha": alpha}
        found.append({**setting, "temperature": temperature, "margin": margin, "log_loss": round(loss, 4)})
    return min(found, key=lambda one: one["log_loss"])


def platt(margins: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """`temperature` and `margin` of P(second) = sigmoid((margins - margin) / temperature), and its log loss.

    `margins` `[N]` are differences of cosines, `second` `[N]` bool (Platt 1999, section 2). If P(second) does not grow
    with the margin, returns the study's temperature and a margin of 0.
    """
    from sklearn.linear_model import LogisticRegression

    from toolkit.heads.base import log_loss
    from toolkit.heads.zero_shot import ZeroShot

    scale = ZeroShot().temperature
    model = LogisticRegression(C=1e4, max_iter=1000).fit(margins[:, None] / scale, second)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    temperature, margin = (scale / slope, -offset * scale / slope) if slope > 0.01 else (scale, 0.0)
    p_second = 1 / (1 + np.exp(-(margins - margin) / temperature))
    loss = log_loss(np.stack([1 - p_second, p_second], axis=1), second.astype(int))
    return round(temperature, 6), round(margin, 6), loss


def scaled(cosines: np.ndarray, codes: np.ndarray) -> tuple[float, float, float]:
    """`temperature`, a margin of 0, and the log loss of P = softmax(cosines / temperature).

    `cosines` `[N, labels]`, `codes` `[N]` the numbers of the true labels (temperature scaling, Guo et al. 2017, section
    4.2). If the cosines do not predict the label, returns the study's temperature.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import softmax

    from toolkit.heads.base import log_loss
    from toolkit.heads.zero_shot import ZeroShot

    def loss(slope: float) -> float:
        return log_loss(softmax(slope * cosines, axis=1), codes)

    found = minimize_scalar(loss, bounds=(0, STEEPEST), method="bounded", options={"xatol": 1e-4})
    temperature = 1 / found.x if found.x > SLIGHTEST else ZeroShot().temperature
    return round(temperature, 6), 0.0, loss(1 / temperature)
