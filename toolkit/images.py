"""From the bytes of an image file to RGB pixels as the eye sees them."""

import io
import warnings

from PIL import Image, ImageOps

from toolkit.errors import ImageError

MOST_PIXELS = 100_000_000
"""Larger images are refused before a pixel is decoded (about 300 MB as RGB): most are decompression bombs."""

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
    if image.mode == "RGB" and image.format == "JPEG" and b"Exif" not in data[:4096]:
        image.load()
        return image
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _sixteen_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        under = Image.new("RGBA", over.size, (*BACKGROUND, 255))
        return Image.alpha_composite(under, over).convert("RGB")
    return image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits (or float) to 8, by their range: Pillow's own conversion clips instead."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ImageError("pixels that are not numbers")
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0)), 1.0)
    return Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8)).convert("RGB")


def _short(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "unknown format" if "cannot identify" in text else text[:80]
