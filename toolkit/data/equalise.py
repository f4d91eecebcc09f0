"""Equal footing: the pictures of every label are changed and saved alike before anything else sees them.

Where sizes or codecs differ between the labels, a detector may learn these (Grommelt et al. 2024, "Fake or JPEG?"). An
equalised picture is a file of its own, with its own hash, vectors and file facts, in training and in testing.
"""

import hashlib
from dataclasses import dataclass, replace

from PIL import Image

from toolkit.data.images import decode
from toolkit.data.manifest import Dataset
from toolkit.data.perturb import KINDS, Kind, Perturbation, as_jpeg, as_png, parse
from toolkit.errors import ImageError, SelectionError


def _side(image: Image.Image, pixels: float, seed: int) -> Image.Image:
    factor = pixels / min(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image, pixels: float, seed: int) -> Image.Image:
    size = int(pixels)
    if min(image.size) < size:
        raise ImageError(f"{image.width} x {image.height} pixels are fewer than crop:{size} takes")
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


STEPS: dict[str, Kind] = {
    "side": Kind("PIXELS", "pixels of the shorter side", 1, 10_000, True, _side),
    "crop": Kind("PIXELS", "pixels of the central square", 1, 10_000, True, _crop),
    **KINDS,
}


@dataclass(frozen=True)
class Equaliser:
    """Steps that are applied to every picture, in their order."""

    steps: tuple[Perturbation, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))

    @property
    def suffix(self) -> str:
        """What the name of equalised data has behind that of the data."""
        return f" ({self})"

    def apply(self, data: bytes) -> bytes:
        """An image file's bytes -> those of the equalised one: a JPEG if the last step is `jpeg`, else a PNG.

        Deterministic, and without metadata. Raises ImageError.
        """
        image, seed = decode(data), int.from_bytes(hashlib.sha256(data).digest()[:8])
        *first, last = self.steps
        for step in first if last.kind == "jpeg" else self.steps:
            image = STEPS[step.kind].change(image, step.amount, seed)
        return as_jpeg(image, last.amount) if last.kind == "jpeg" else as_png(image)


def parse_steps(text: str) -> Equaliser:
    """`side:559,jpeg:95` -> the steps. Raises SelectionError, saying what is allowed."""
    steps = tuple(parse(part, STEPS, "--equalise") for part in text.split(",") if part.strip())
    if not steps:
        raise SelectionError("--equalise names no step: it takes some, in their order, as in side:224,jpeg:95.")
    return Equaliser(steps)


def equalised(dataset: Dataset, equaliser: Equaliser) -> Dataset:
    """The data set with every picture equalised, under a name of its own; rows and paths are unchanged."""
    read, described = dataset.read, f"{dataset.description}, equalised by {equaliser}"
    name = f"{dataset.name}{equaliser.suffix}"
    return replace(dataset, name=name, description=described, read=lambda path: equaliser.apply(read(path)))
