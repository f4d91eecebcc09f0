"""Any number of small distinct images, made when they are read, and an encoder that costs next to nothing."""

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from PIL import Image

from toolkit.data.images import decode
from toolkit.data.manifest import Dataset
from toolkit.encoders.record import EncoderRecord

DIMENSION = 512


def generated(count: int) -> Dataset:
    """`count` images of 32x32 pixels, named and divided as CIFAKE's are; image n's pixels spell n."""

    def read(path: str) -> bytes:
        number = int(path.rsplit("/", 1)[1].split()[0])
        pixels = np.frombuffer(number.to_bytes(8, "big") * 384, dtype=np.uint8).reshape(32, 32, 3)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "BMP")
        return data.getvalue()

    return Dataset("generated", f"{count:,} generated images", _rows(count), read, "folder")


def _rows(count: int) -> pl.DataFrame:
    number = pl.int_range(count)
    split = pl.when(number % 6 == 0).then(pl.lit("test")).otherwise(pl.lit("train"))
    label = pl.when(number % 4 < 2).then(pl.lit("REAL")).otherwise(pl.lit("FAKE"))
    path = pl.format("{}/{}/{} ({}).bmp", split, label, number.cast(pl.String).str.zfill(7), number % 10 + 1)
    return pl.select(path=path, label=label, category=pl.format("category {}", number % 10), split=split)


class GeneratedEncoder:
    """A fixed projection of the pixels."""

    batch_size = 256

    def __init__(self) -> None:
        named = {"model": "projection", "pretrained": "none", "known_as": ("projection none",)}
        self.record = EncoderRecord("generated0000000", dimension=DIMENSION, **named)  # type: ignore[arg-type]
        self._projection = np.random.default_rng(0).standard_normal((3072, DIMENSION)).astype(np.float32)

    def prepare(self, data: bytes) -> np.ndarray:
        return np.asarray(decode(data))

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1).astype(np.float32) @ self._projection

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(prompts), DIMENSION), dtype=np.float32)
