"""Recipes: the settings of fine-tuning. `study` is the default and has the study's settings."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from toolkit.errors import SelectionError, did_you_mean
from toolkit.finetuning.augment import check_steps


@dataclass(frozen=True)
class Grid:
    """The values to choose from inside the training images: epochs, `Recipe.alpha`, and learning rates as multiples of
    the recipe's."""

    epochs: tuple[int, ...]
    alphas: tuple[float, ...] = (0.75, 1.0)
    learning_rates: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune. The defaults are the study's; `learning_rate` None means the model's own default.

    `augment` names steps of `augment.STEPS`, separated by commas; `average` is the decay of `averaging.averaged`.
    `alpha` below 1 interpolates between the base encoder and the fine-tuned one. With a `grid`, epochs, alpha and
    learning rate are first chosen from it, by `choose_by` (`category` or `folds`), and replace the recipe's values.
    """

    name: str = "study"
    loss: str = "contrastive"
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float | None = None
    temperature: float = 0.07
    weight_decay: float = 0.01
    seed: int = 0
    augment: str = ""
    average: float = 0.0
    alpha: float = 1.0
    grid: Grid | None = None
    choose_by: str = "category"

    def chosen(self, by: str = "category") -> "Recipe":
        """The recipe with a grid: half, three quarters or all of its epochs; its `alpha`, or 0.75 and 1 if it is 1."""
        epochs = tuple(sorted({max(1, self.epochs * quarters // 4) for quarters in (2, 3, 4)}))
        grid = Grid(epochs, (0.75, 1.0) if self.alpha == 1 else (self.alpha,))
        return replace(self, grid=grid, choose_by=by)

    def for_model(self, model: str) -> "Recipe":
        """The recipe with the model's learning rate filled in: nano is small and trained from scratch, so it needs
        a larger one than the study's 1e-5 for ViT-B/32."""
        if self.learning_rate is not None:
            return self
        return replace(self, learning_rate=3e-4 if model == "nano" else 1e-5)

    def label(self, model: str) -> str:
        """Its name in the results table: the recipe's name and every setting that differs from that recipe."""
        plain = asdict(replace(RECIPES[self.name], seed=self.seed).for_model(model))
        mine = asdict(self.for_model(model))
        changes = [f"{name}={mine[name]}" for name in mine if mine[name] != plain[name] and name != "grid"]
        return " ".join([self.name, *changes, *(["chosen"] if self.grid else [])])

    def settings(self) -> dict[str, Any]:
        """The fields for a checkpoint's record. Fields that later versions added are omitted at their defaults, so that
        the keys of older checkpoints stay valid."""
        defaults = {field.name: field.default for field in fields(self)}
        return {n: value for n, value in asdict(self).items() if n not in LATER or value != defaults[n]}


LATER = ("augment", "average", "alpha", "grid", "choose_by")

RECIPES: dict[str, Recipe] = {
    "study": Recipe(),
    "robust": Recipe("robust", loss="prompts", augment="flip,shift", average=0.98, epochs=8),
}


def make_recipe(name: str = "study", **changes: Any) -> Recipe:
    """The recipe of that name, with other values for some of its fields; None leaves a field as it is.

    Raises SelectionError for a recipe, a field or an augmentation that does not exist.

    >>> make_recipe("study", epochs=2).label("nano")
    'study epochs=2'
    """
    if name not in RECIPES:
        raise SelectionError(
            f"There is no recipe {name!r}.{did_you_mean(name, RECIPES)} --recipe takes {', '.join(RECIPES)}."
        )
    known = [field.name for field in fields(Recipe)]
    for field in changes:
        if field not in known:
            raise SelectionError(f"A recipe has no {field!r}.{did_you_mean(field, known)} It has {', '.join(known)}.")
    check_steps(changes.get("augment") or "")
    return replace(RECIPES[name], **{field: value for field, value in changes.items() if value is not None})
