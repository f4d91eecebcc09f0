"""Augmentations that keep a generator's artefacts: pixels are moved, never resampled, blurred or recompressed."""

from collections.abc import Callable

import numpy as np

from toolkit.errors import SelectionError

SHIFT = 1 / 16
"""The largest shift, as a share of the side: 2 of 32 pixels, 14 of 224."""


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror `[3, H, W]` left to right, with probability 1/2."""
    return image[:, :, ::-1] if rng.random() < 0.5 else image


def shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift `[3, H, W]` by a random number of whole pixels; the border is filled by reflection."""
    height, width = image.shape[1:]
    down, right = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    padded = np.pad(image, ((0, 0), (down, down), (right, right)), mode="reflect")
    top, left = int(rng.integers(2 * down + 1)), int(rng.integers(2 * right + 1))
    return padded[:, top : top + height, left : left + width]


STEPS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {"flip": flip, "shift": shift}


def check_steps(steps: str) -> None:
    """Raise SelectionError if `steps` contains a name that is not in `STEPS`."""
    for name in filter(None, steps.split(",")):
        if name not in STEPS:
            raise SelectionError(f"There is no augmentation {name!r}: --augment takes {', '.join(STEPS)}.")


def augment(image: np.ndarray, steps: str, rng: np.random.Generator) -> np.ndarray:
    """Apply the named steps (`"flip,shift"`) to `[3, H, W]` uint8, in this order."""
    for name in filter(None, steps.split(",")):
        image = STEPS[name](image, rng)
    return image
