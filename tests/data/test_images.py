"""Every readable image becomes RGB as an image viewer shows it; others give a short reason."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from toolkit.data.images import decode, without_metadata
from toolkit.encoders.features import file_facts
from toolkit.errors import ImageError

WIDTH, HEIGHT = 24, 16


def picture() -> Image.Image:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([rows * 15, columns * 10, np.full_like(rows, 90)], axis=2).astype(np.uint8)
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def difference(data: bytes, expected: Image.Image) -> float:
    got = decode(data)
    assert got.mode == "RGB" and got.size == expected.size
    return float(np.abs(np.asarray(got, float) - np.asarray(expected.convert("RGB"), float)).mean())


def sixteen_bits() -> bytes:
    grey = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(grey))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: saved(picture()), picture),
        (lambda: saved(picture(), "WEBP", lossless=True), picture),
        (lambda: saved(picture(), "BMP"), picture),
        (lambda: saved(picture(), "TIFF"), picture),
        (lambda: saved(picture().convert("1")), lambda: picture().convert("1")),
        (lambda: saved(picture().convert("L")), lambda: picture().convert("L")),
        (sixteen_bits, lambda: picture().convert("L")),
        (lambda: saved(picture().resize((1, 1))), lambda: picture().resize((1, 1))),
        (lambda: saved(picture().resize((1, 5000))), lambda: picture().resize((1, 5000))),
        (lambda: saved(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (24, 16))]), picture),
    ],
)
def test_each_kind_is_decoded_as_the_eye_sees_it(
    make: Callable[[], bytes], expected: Callable[[], Image.Image]
) -> None:
    assert difference(make(), expected()) < 4


def test_cmyk_jpeg_is_rgb() -> None:
    assert difference(saved(picture().convert("CMYK"), "JPEG", quality=95), picture()) < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_show_white(mode: str) -> None:
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    data = saved(clear.convert(mode)) if mode != "P" else saved(picture().quantize(4), transparency=0)
    pixels = np.asarray(decode(data))
    assert (pixels == 255).all() if mode != "P" else (pixels == 255).all(axis=2).any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_applied(orientation: int) -> None:
    upright = picture()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that a camera would have applied
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    assert difference(saved(stored, "JPEG", exif=exif, quality=100, subsampling=0), upright) < 4


@pytest.mark.parametrize("data", [b"", b"some text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a"])
def test_what_is_no_image_has_a_short_reason(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert 0 < len(str(caught.value)) < 140 and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", range(20))
def test_a_truncated_file_is_refused(kind: str, share: int) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = saved(noise, kind)
    with pytest.raises(ImageError):
        decode(data[: 1 + len(data) * share // 21])


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (30_000 * 3_751), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="30000 x 30000|exceeds limit"):
        decode(bomb)


def test_a_thousand_mutated_jpegs_are_decoded_or_refused_and_nothing_else() -> None:
    rng = random.Random(0)
    original = saved(picture().resize((48, 48)), "JPEG", quality=80)
    refused = 0
    for _ in range(1000):
        data = bytearray(original)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert decode(bytes(data)).mode == "RGB"
        except ImageError:
            refused += 1
    assert 0 < refused < 1000


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


HUGE = zlib.compress(bytes(60_000_000))
METADATA_OF_PNG = {
    "a huge compressed text": chunk(b"zTXt", b"workflow\0\0" + HUGE),
    "a huge international text": chunk(b"iTXt", b"prompt\0\1\0\0\0" + HUGE),
    "a text that cannot be unpacked": chunk(b"zTXt", b"workflow\0\0no zlib"),
    "a text with a wrong checksum": chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0",
    "a broken profile": chunk(b"iCCP", b"x\0\0no zlib"),
    "a huge profile": chunk(b"iCCP", b"x\0\0" + HUGE),
    "broken EXIF": chunk(b"eXIf", b"MM no EXIF at all"),
}
METADATA_OF_JPEG = {
    "broken EXIF": b"\xff\xe1\0\x12Exif\0\0no EXIF!!",
    "EXIF that leads nowhere": b"\xff\xe1\0\x18Exif\0\0II*\0" + b"\xff" * 12,
    "half a profile": b"\xff\xe2\0\x10ICC_PROFILE\0\1\5",
    "a broken list of pictures": b"\xff\xe2\0\x0dMPF\0garbage",
    "broken Photoshop data": b"\xff\xed\0\x18Photoshop 3.0\x008BIM\4\4\0\0",
    "half a note on colours": b"\xff\xee\0\x07Adobe",
}


@pytest.mark.parametrize("kind", METADATA_OF_PNG)
@pytest.mark.parametrize("behind", [False, True])
def test_no_metadata_keeps_a_png_from_being_read(kind: str, behind: bool) -> None:
    plain = saved(picture(), "PNG")
    place = plain.index(b"IEND") - 4 if behind else plain.index(b"IDAT") - 4
    data = plain[:place] + METADATA_OF_PNG[kind] + plain[place:]
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(plain)))
    assert np.isfinite(file_facts(data)).all()


@pytest.mark.parametrize("kind", METADATA_OF_JPEG)
def test_no_metadata_keeps_a_jpeg_from_being_read(kind: str) -> None:
    plain = saved(picture(), "JPEG", quality=90)
    data = plain[:2] + METADATA_OF_JPEG[kind] + plain[2:]
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(plain)))


def test_a_webp_is_read_without_its_broken_metadata() -> None:
    plain, odd = saved(picture(), "WEBP", lossless=True), {"exif": b"Exif\0\0x", "icc_profile": b"x", "xmp": b"<"}
    data = saved(picture(), "WEBP", lossless=True, **odd)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(plain)))
    assert np.array_equal(np.asarray(decode(without_metadata(data) or b"")), np.asarray(decode(plain)))


def test_a_turned_picture_stays_turned_beside_a_broken_text() -> None:
    exif = Image.Exif()
    exif[274] = 6
    plain = saved(picture(), "PNG", exif=exif)
    place = plain.index(b"IDAT") - 4
    data = plain[:place] + METADATA_OF_PNG["a huge compressed text"] + plain[place:]
    assert np.array_equal(np.asarray(decode(data)), np.rot90(np.asarray(picture()), -1))


def test_a_picture_that_is_cut_off_is_not_read_for_want_of_metadata() -> None:
    plain = saved(Image.effect_noise((64, 64), 90), "PNG")
    place = plain.index(b"IDAT") - 4
    data = plain[:place] + METADATA_OF_PNG["a broken profile"] + plain[place : place + 900]
    with pytest.raises(ImageError):
        decode(data)
