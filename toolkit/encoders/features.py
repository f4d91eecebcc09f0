"""Features of an image that need no model: its pixels, and facts about its file.

They are encoders like others, with a record, an identity and a folder in the cache.
"""

import hashlib
import json
import warnings
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from toolkit.data.images import FORMATS, decode, open_image
from toolkit.encoders.record import EncoderRecord, Sees
from toolkit.errors import ImageError

SIDE = 32
VERSION = 1
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F")
FACTS = (
    *("format", "colour mode", "width", "height", "aspect", "bytes", "bytes per pixel"),
    *("JPEG luminance table", "JPEG colour table", "JPEG subsampling", "progressive JPEG"),
    *("EXIF", "colour profile", "XMP", "resolution", "other metadata"),
)
"""The names of the numbers that `file_facts` returns, in order."""


class Features:
    """An `Encoder` that needs no model."""

    batch_size = 256
    sees: Sees

    def __init__(self, dimension: int, settings: str):
        parts = json.dumps([self.sees, VERSION, dimension, settings])
        self.record = EncoderRecord(
            identity=hashlib.sha256(parts.encode()).hexdigest()[:16],
            model=self.sees,
            pretrained=settings,
            dimension=dimension,
            sees=self.sees,
            has_text=False,
        )

    def prepare(self, data: bytes) -> np.ndarray:
        """An image file's bytes -> its `[D]` numbers. Raises ImageError."""
        raise NotImplementedError

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, D]` from `prepare` -> the same as float32."""
        return np.asarray(pixels, dtype=np.float32)

    def embed_prompts(self, prompts: Any) -> np.ndarray:
        """There is no text tower: raises NotImplementedError."""
        raise NotImplementedError(f"{self.sees} have no prompts")


class Pixels(Features):
    """`[3 x 32 x 32]` numbers from 0 to 255, colours first; images of another size are resized (bicubic)."""

    sees = Sees.PIXELS

    def __init__(self) -> None:
        super().__init__(3 * SIDE * SIDE, f"{SIDE}x{SIDE}")

    def prepare(self, data: bytes) -> np.ndarray:
        image = decode(data)
        if image.size != (SIDE, SIDE):
            image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return np.asarray(image).transpose(2, 0, 1).reshape(-1)


class FileFacts(Features):
    """The numbers of `FACTS`."""

    sees = Sees.FILE_FACTS

    def __init__(self) -> None:
        super().__init__(len(FACTS), f"{len(FACTS)} facts")

    def prepare(self, data: bytes) -> np.ndarray:
        return file_facts(data)


WITHOUT_MODEL: dict[str, type[Pixels] | type[FileFacts]] = {one.sees: one for one in (Pixels, FileFacts)}
"""Encoders that need no model, by what they see."""


def file_facts(data: bytes) -> np.ndarray:
    """The bytes of an image file -> facts that need no look at the picture: `[len(FACTS)]` float32.

    Only headers are read. Formats and modes are their positions in `FORMATS` and `MODES`, or -1. A JPEG table is the
    sum of its 64 steps (smaller means higher quality), 0 for other formats. Raises ImageError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = open_image(data, load=False)
    except ImageError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise ImageError(f"not a readable image ({type(error).__name__})") from error
    pixels = max(1, image.width * image.height)
    shape = [image.width, image.height, image.width / max(1, image.height), len(data), len(data) / pixels]
    numbers = [_place(image.format, FORMATS), _place(image.mode, MODES), *shape, *_jpeg(image), *_metadata(image)]
    return np.array(numbers, dtype=np.float32)


def _place(name: str | None, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else -1


def _jpeg(image: Image.Image) -> list[float]:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return [0, 0, -1, 0]
    tables = [sum(table) for _, table in sorted(image.quantization.items())]
    colour = tables[1] if len(tables) > 1 else 0
    progressive = bool(image.info.get("progressive"))
    return [tables[0] if tables else 0, colour, JpegImagePlugin.get_sampling(image), progressive]


KNOWN_METADATA = {"exif": "EXIF", "icc_profile": "colour profile", "xmp": "XMP", "dpi": "resolution"}
NO_METADATA = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression", "transparency"}


def _metadata(image: Image.Image) -> list[float]:
    """Whether each known kind is present, and the number of other entries."""
    names = {str(name).lower() for name in image.info}
    return [*(name in names for name in KNOWN_METADATA), len(names - set(KNOWN_METADATA) - NO_METADATA)]
