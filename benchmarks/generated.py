"""Any number of small distinct images, made when they are read, and an encoder that costs next to nothing."""

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from PIL import Image

from toolkit.images import decode
from toolkit.manifest import Dataset

DIMENSION = 512


def generated(count: int) -> Dataset:
    """`count` images of 8x8 pixels; image n's pixels spell n."""

    def read(path: str) -> bytes:
        pixels = np.frombuffer(int(path).to_bytes(8, "big") * 24, dtype=np.uint8).reshape(8, 8, 3)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "BMP")
        return data.getvalue()

    paths = pl.Series("path", [str(number) for number in range(count)])
    rows = pl.DataFrame([paths]).with_columns(label=pl.lit("REAL"), category=pl.lit("x"), split=pl.lit("train"))
    return Dataset("generated", f"{count:,} generated images", rows, read, "folder")


class GeneratedEncoder:
    """A fixed projection of the pixels."""

    batch_size = 256

    def __init__(self) -> None:
        self.record = {
            "kind": "base",
            "model": "projection",
            "pretrained": "none",
            "precision": "fp32",
            "dimension": DIMENSION,
            "identity": "generated0000000",
        }
        self._projection = np.random.default_rng(0).standard_normal((192, DIMENSION)).astype(np.float32)

    def prepare(self, data: bytes) -> np.ndarray:
        return np.asarray(decode(data))

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1).astype(np.float32) @ self._projection

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(prompts), DIMENSION), dtype=np.float32)
