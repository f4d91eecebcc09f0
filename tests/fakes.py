"""Stand-ins for the slow parts, so that most tests need no torch."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from toolkit.data.images import decode
from toolkit.encoders.record import EncoderRecord


class FakeEncoder:
    """Embeds an image as a fixed random projection of its 4x4 thumbnail, and counts what it was asked for."""

    def __init__(self, identity: str = "fake000000000000", dimension: int = 16):
        self.identity = identity
        self.dimension = dimension
        self.batch_size = 8
        self.images_embedded = 0
        self.prompts_embedded = 0
        self.record = EncoderRecord(
            identity=identity,
            model="fake",
            pretrained="none",
            dimension=dimension,
            weights_sha256="0" * 64,
            preprocessing={"size": 4},
            known_as=("fake none",),
        )
        self._projection = np.random.default_rng(0).standard_normal((48, dimension)).astype(np.float32)

    def prepare(self, data: bytes) -> np.ndarray:
        return self.preprocess(decode(data))

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4))).transpose(2, 0, 1)

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        self.images_embedded += len(pixels)
        return (pixels.reshape(len(pixels), -1).astype(np.float32) / 255) @ self._projection

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        self.prompts_embedded += len(prompts)
        rows = [np.random.default_rng(list(p.encode())).standard_normal(self.dimension) for p in prompts]
        return np.asarray(rows, dtype=np.float32)
