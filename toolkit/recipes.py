"""Recipes: how to fine-tune, as data. `study` is the study's and the default."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from toolkit.errors import SelectionError, did_you_mean


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune. The defaults are the study's; `learning_rate` None means the model's own default."""

    name: str = "study"
    loss: str = "contrastive"
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float | None = None
    temperature: float = 0.07
    weight_decay: float = 0.01
    seed: int = 0

    def for_model(self, model: str) -> "Recipe":
        """The recipe with the model's learning rate filled in: nano is small and trained from scratch, so it needs
        a larger one than the study's 1e-5 for ViT-B/32."""
        if self.learning_rate is not None:
            return self
        return replace(self, learning_rate=3e-4 if model == "nano" else 1e-5)

    def label(self, model: str) -> str:
        """What the results table calls it: the name, and whatever differs from the recipe of that name."""
        plain = asdict(replace(RECIPES[self.name], seed=self.seed).for_model(model))
        changes = [
            f"{field}={value}" for field, value in asdict(self.for_model(model)).items() if plain[field] != value
        ]
        return " ".join([self.name, *changes])


RECIPES: dict[str, Recipe] = {"study": Recipe()}


def make_recipe(name: str = "study", **changes: Any) -> Recipe:
    """The recipe of that name, with other values for some of its fields; None leaves a field as it is.

    Raises SelectionError for a recipe or a field that does not exist.

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
    return replace(RECIPES[name], **{field: value for field, value in changes.items() if value is not None})
