"""Perturbed test images, changed as the web changes them: compression, blur, another size, noise.

Wang et al. 2020 ("CNN-generated images are surprisingly easy to spot") and Ojha et al. 2023 test detectors with
compression and blur. A perturbed test set is a data set of its own (`perturbed`): its files are new PNGs with their own
hashes and vectors.
"""

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
import polars as pl
from filelock import FileLock
from PIL import Image, ImageFilter

from toolkit.data.images import decode
from toolkit.data.manifest import Dataset, hash_rows
from toolkit.errors import CacheError, SelectionError, did_you_mean
from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import write_record

VERSION = 1
RECORDS = "perturbed-*.json"


@dataclass(frozen=True)
class Kind:
    """A kind of perturbation: the name, meaning and range of its amount, and the function that changes an image. `seed`
    is derived from the image."""

    short: str
    amount: str
    low: float
    high: float
    whole: bool
    change: Callable[[Image.Image, float, int], Image.Image]


def as_jpeg(image: Image.Image, quality: float) -> bytes:
    """The image as a JPEG with half the colour resolution."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=int(quality), subsampling=2)
    return data.getvalue()


def as_png(image: Image.Image) -> bytes:
    """The image as a PNG, uncompressed, since it is never stored."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=0)
    return data.getvalue()


def _jpeg(image: Image.Image, quality: float, seed: int) -> Image.Image:
    return decode(as_jpeg(image, quality))


def _blur(image: Image.Image, radius: float, seed: int) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _resize(image: Image.Image, factor: float, seed: int) -> Image.Image:
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


def _noise(image: Image.Image, deviation: float, seed: int) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noisy = pixels + np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return Image.fromarray(np.clip(noisy.round(), 0, 255).astype(np.uint8))


KINDS = {
    "jpeg": Kind("QUALITY", "quality", 1, 100, True, _jpeg),
    "blur": Kind("RADIUS", "Gaussian radius in pixels", 0.1, 50, False, _blur),
    "resize": Kind("FACTOR", "factor of width and height", 0.05, 4, False, _resize),
    "noise": Kind("DEVIATION", "standard deviation in grey values", 0.1, 128, False, _noise),
}


@dataclass(frozen=True)
class Perturbation:
    """One kind of perturbation with one amount."""

    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"

    def apply(self, data: bytes) -> bytes:
        """An image file's bytes -> the bytes of a perturbed PNG, deterministically. Raises ImageError."""
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8])
        return as_png(KINDS[self.kind].change(decode(data), self.amount, seed))


def parse(text: str, kinds: Mapping[str, Kind] = KINDS, option: str = "--perturb") -> Perturbation:
    """`jpeg:75` -> the perturbation, of one of the `kinds` that `option` takes. Raises SelectionError, saying what is
    allowed."""
    name, _, number = text.strip().partition(":")
    if name not in kinds:
        known = ", ".join(f"{name}:{kind.short}" for name, kind in kinds.items())
        guess = did_you_mean(name, kinds)
        what = "perturbation" if option == "--perturb" else "step"
        raise SelectionError(f"There is no {what} {text!r}.{guess} {option} takes {known}, as in jpeg:75.")
    kind = kinds[name]
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if not kind.low <= amount <= kind.high or (kind.whole and amount != int(amount)):
        what = "a whole number" if kind.whole else "a number"
        raise SelectionError(
            f"{option} {text!r}: the {kind.amount} of {name} is {what} from {kind.low:g} to {kind.high:g}."
        )
    return Perturbation(name, amount)


def parse_all(texts: Sequence[str]) -> list[Perturbation]:
    """Several perturbations, without repeats, in their order. Raises SelectionError."""
    return list(dict.fromkeys(parse(part) for text in texts for part in text.split(",") if part.strip()))


def perturbed(dataset: Dataset, perturbation: Perturbation) -> Dataset:
    """The data set with every image perturbed; rows and paths are unchanged."""
    return replace(dataset, read=lambda path: perturbation.apply(dataset.read(path)))


def perturbed_rows(dataset: Dataset, rows: pl.DataFrame, perturbation: Perturbation, cache: Path) -> pl.DataFrame:
    """`rows` (columns path, sha256, …) with the keys of their perturbed images; unreadable ones are left out.

    The hashes are stored in `cache`, so that images are perturbed again only to embed them. The record names the
    versions of Pillow and numpy, since other versions may give other bytes.
    """
    place = cache / RECORDS.replace("*", str(perturbation).replace(":", "-"))
    known = _remembered(place)
    new = rows.filter(~pl.col("sha256").is_in(list(known))).unique("sha256", keep="first", maintain_order=True)
    if len(new):
        found = hash_rows(perturbed(dataset, perturbation), new.select("path"))["sha256"].to_list()
        added = {key: made for key, made in zip(new["sha256"].to_list(), found, strict=True) if made}
        _remember(place, added)
        known |= added
    keys = pl.Series("sha256", [known.get(key) for key in rows["sha256"]], dtype=pl.String)
    return rows.with_columns(keys).filter(pl.col("sha256").is_not_null())


def _versions() -> dict[str, str]:
    return {"version": str(VERSION), "pillow": PIL.__version__, "numpy": np.__version__}


def _remembered(place: Path) -> dict[str, str]:
    """SHA-256 of the original -> of the perturbed image; empty if the record is missing, damaged or of another
    version."""
    record = record_if_whole(place, "images are perturbed again")
    return dict(record["keys"]) if record and record["made_with"] == _versions() else {}


def _remember(place: Path, added: dict[str, str]) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):
            write_record(place, {"made_with": _versions(), "keys": {**_remembered(place), **added}})
    except (CacheError, OSError):
        return  # a read-only cache: next time it is found out again
