"""From the bytes of an image file to RGB pixels as the eye sees them."""

import io
import warnings

from PIL import Image, ImageOps

from toolkit.errors import ImageError

MOST_PIXELS = 100_000_000
"""Larger images are refused before a pixel is decoded: most are decompression bombs. One of this size takes 0.4 GB as a
JPEG, and up to 1 GB if it is turned, transparent, or of 16 bits."""

ROWS_AT_ONCE = 256

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode(data: bytes) -> Image.Image:
    """The bytes of an image -> RGB: turned as EXIF says, transparency on white, an animation's first frame.

    Raises ImageError, with a short reason, for whatever is not an image, is cut off, or has over `MOST_PIXELS` pixels.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata in pictures that it reads well
            return _decode(data)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("does not fit into memory") from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise ImageError(f"not a readable image ({_short(error)})") from error


def _decode(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        return _sixteen_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", over.size, BACKGROUND)
        image.paste(over, mask=over.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits (or float) to 8, by their range: Pillow's own conversion clips instead."""
    import numpy as np

    values = np.asarray(image)
    if not np.isfinite(values.min()) or not np.isfinite(values.max()):  # a NaN is the least and the most of all
        raise ImageError("pixels that are not numbers")
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1.0)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS_AT_ONCE):  # in float64 a large image would take eight times its room
        rows = values[start : start + ROWS_AT_ONCE].astype(np.float64)
        grey[start : start + ROWS_AT_ONCE] = np.clip(rows / top * 255, 0, 255).round()
    return Image.fromarray(grey).convert("RGB")


def _short(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "unknown format" if "cannot identify" in text else text[:80]
