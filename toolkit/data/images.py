"""Decode image files to RGB pixels, as an image viewer shows them."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import PIL
from PIL import Image

from toolkit.errors import ImageError, first_line

MOST_PIXELS = 100_000_000
"""Larger images are refused before decoding, as protection from decompression bombs. An image of this size takes 0.4 GB
as a JPEG, and up to 1 GB if it is rotated, transparent, or of 16 bits."""

NO_MEMORY = "does not fit into memory"
ROWS_AT_ONCE = 256

BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".jpe", ".avif", ".jp2")
"""Files with these suffixes are listed without looking inside; for others the first bytes decide (`format_of`)."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")

HEAD = 32
"""The first bytes of a file that are needed to know its format."""
SIGNATURES = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"GIF8", 0, "GIF"),
    (b"WEBP", 8, "WEBP"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", 0, "JPEG2000"),
    (b"\xffO\xffQ\0", 0, "JPEG2000"),
    *((b"ftyp" + brand, 4, "AVIF") for brand in (b"avif", b"avis")),
    *((b"ftyp" + brand, 4, "HEIF") for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")),
)
HEIC = "HEIC, which is read after pip install pillow-heif"
"""The reason for skipping such a file where that package is missing."""

KEPT_IN_PNG = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
"""Ancillary PNG chunks that affect the picture; kept if their checksum is right."""

ADOBE = 16
"""The shortest valid APP14 segment."""


def format_of(head: bytes) -> str | None:
    """The format of a picture (`JPEG`, …, `HEIF`) by its first `HEAD` bytes; None for anything else."""
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    return next((name for mark, at, name in SIGNATURES if head[at : at + len(mark)] == mark), None)


def decode(data: bytes) -> Image.Image:
    """The bytes of an image -> RGB: turned as EXIF says, transparency on white, an animation's first frame.

    Broken or huge metadata (texts, ICC profiles, EXIF) is ignored. Raises ImageError, with a short reason, for whatever
    is not an image, is cut off, or has over `MOST_PIXELS` pixels.
    """
    if not data:
        raise ImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata in images that it reads well
            return _decode(data)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(NO_MEMORY) from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        if format_of(data[:HEAD]) == "HEIF" and "HEIF" not in formats():
            raise ImageError(HEIC) from error
        raise ImageError(f"not a readable image ({_short(error)})") from error


def open_image(data: bytes, load: bool = True) -> Image.Image:
    """The image as stored, opened without its metadata where Pillow fails on that; `load` decodes the pixels, too.
    Raises whatever Pillow does for a damaged picture, ImageError for a huge one."""
    try:
        return _opened(data, load)
    except (ImageError, MemoryError):
        raise
    except Exception:  # damaged files make Pillow's decoders raise nearly anything
        bare = without_metadata(data)
        if bare is None or bare == data:
            raise
        return _opened(bare, load)


@cache
def formats() -> tuple[str, ...]:
    """The formats that can be read; HEIF if pillow-heif is installed."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in (*FORMATS, "HEIF") if name in Image.OPEN)


def decoders() -> str:
    """What `formats` depends on, known without loading Pillow's plugins: its version, and whether HEIF is installed."""
    return f"Pillow {PIL.__version__}{', HEIF' if find_spec('pillow_heif') else ''}"


def _opened(data: bytes, load: bool) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data), formats=formats())
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
    if load:
        image.load()
    return image


def _decode(data: bytes) -> Image.Image:
    image = _turned(open_image(data))
    if image.mode.startswith(("I", "F")):
        return _sixteen_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", over.size, BACKGROUND)
        image.paste(over, mask=over.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _turned(image: Image.Image) -> Image.Image:
    """Rotated or mirrored as EXIF says; unchanged if EXIF is broken."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF makes Pillow raise nearly anything
        return image
    turns: dict[Any, Image.Transpose] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation)
    return image if turn is None else image.transpose(turn)


def without_metadata(data: bytes) -> bytes | None:
    """A PNG, JPEG or WebP without texts, profiles and broken EXIF, with the same pixels; None for other formats."""
    kind = format_of(data[:HEAD])
    if kind == "PNG":
        return data[:8] + b"".join(_png_chunks(data))
    if kind == "JPEG":
        return data[:2] + b"".join(_jpeg_segments(data))
    if kind == "WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(data))
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The critical chunks (PNG, section 5.4: a capital first letter), and those of `KEPT_IN_PNG` with a valid
    checksum."""
    start = 8
    while start + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[start : start + 8])
        chunk = data[start : start + size + 12]
        whole = name in KEPT_IN_PNG and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if name[:1].isupper() or whole:
            yield chunk
        start += size + 12


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """All segments except APP1 to APP13, APP15 and comments. APP0 and APP14 stay: they define the colours."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker == 0xFF:  # padding
            start += 1
            continue
        if marker == 0xDA:
            yield data[start:]
            return
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        broken = marker == 0xEE and end - start < ADOBE
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE) or broken):
            yield data[start:end]
        start = end


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """All chunks except ICCP, EXIF and XMP, whose flags in VP8X are cleared (RFC 9649, 2.7)."""
    start = 12
    while start + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[start : start + 8])
        chunk = data[start : start + 8 + size + size % 2]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~0b101100]) + chunk[9:]
        if name not in (b"ICCP", b"EXIF", b"XMP "):
            yield chunk
        start += 8 + size + size % 2


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits (or float) to 8, by their range: Pillow's own conversion clips instead."""
    import numpy as np

    values = np.asarray(image)
    if not np.isfinite(values.min()) or not np.isfinite(values.max()):  # min and max are NaN if any value is
        raise ImageError("pixels that are not numbers")
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1.0)
    grey = np.empty(values.shape, np.uint8)
    for start in range(
        0, len(values), ROWS_AT_ONCE
    ):  # slices, since a whole image as float64 takes eight times the memory
        rows = values[start : start + ROWS_AT_ONCE].astype(np.float64)
        grey[start : start + ROWS_AT_ONCE] = np.clip(rows / top * 255, 0, 255).round()
    return Image.fromarray(grey).convert("RGB")


def _short(error: Exception) -> str:
    text = first_line(error, 80)
    return "unknown format" if "cannot identify" in text else text
