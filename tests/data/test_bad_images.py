"""`embed` on a corpus of bad images: readable ones are embedded as an image viewer shows them, the others are listed
with reasons, and memory stays bounded."""

import hashlib
import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from places import ROOT
from trees import jpeg, write_folder

from toolkit.cache.store import Cache, find_encoders
from toolkit.data.images import decode
from toolkit.data.manifest import hash_rows
from toolkit.data.sources import open_data
from toolkit.encoders import openclip

MOST_MB = 1000
"""What decoding the largest image that is not refused may take beyond what `embed` takes on clean ones."""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def picture() -> Image.Image:
    rows, columns = np.mgrid[0:32, 0:32]
    return Image.fromarray(np.stack([rows * 7, columns * 7, 255 - rows * 7], axis=2).astype(np.uint8))


def few_colours() -> Image.Image:
    return picture().quantize(32)


def half_clear(mode: str) -> bytes:
    """The left half is transparent."""
    if mode == "RGBA":
        image = picture().convert("RGBA")
        image.paste((0, 0, 0, 0), (0, 0, 16, 32))
        return saved(image, "PNG")
    image = few_colours()
    image.putpalette([*(image.getpalette() or [])[:96], 0, 0, 0])
    image.paste(32, (0, 0, 16, 32))
    return saved(image, "PNG", transparency=32)


def over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGB")
    image.paste((255, 255, 255), (0, 0, 16, 32))
    return image


def sixteen_bits() -> bytes:
    return saved(Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return saved(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=100, subsampling=0)


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few kilobytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0))
    rows = zlib.compress(b"\0" * (30_000 * 3_751), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows[:6_000]) + chunk(b"IEND", b"")


def huge() -> bytes:
    """Just small enough to be decoded, in the mode that takes the most memory."""
    return saved(Image.new("RGBA", (10_000, 9_999), (9, 9, 9, 9)), "PNG", compress_level=1)


def clean(each: int) -> dict[str, bytes]:
    """Some readable images of each split and label."""
    places = [(split, label) for split in ("train", "test") for label in ("REAL", "FAKE")]
    return {
        f"{split}/{label}/{n}.jpg": jpeg(n + 50 * number, label)
        for number, (split, label) in enumerate(places)
        for n in range(each)
    }


AS_THE_EYE_SEES_IT: dict[str, tuple[bytes, Image.Image]] = {
    "cmyk.jpg": (saved(picture().convert("CMYK"), "JPEG", quality=100, subsampling=0), picture()),
    "sixteen.png": (
        sixteen_bits(),
        picture().convert("L"),
    ),
    "one-bit.png": (saved(picture().convert("1"), "PNG"), picture().convert("1")),
    "palette.png": (half_clear("P"), over_white(few_colours())),
    "rgba.png": (half_clear("RGBA"), over_white(picture())),
    "turned.jpg": (turned(), picture()),
    "animated.gif": (
        saved(few_colours(), "GIF", save_all=True, append_images=[Image.new("P", (32, 32))]),
        few_colours().convert("RGB"),
    ),
    "web.webp": (saved(picture(), "WEBP", lossless=True), picture()),
    "tiny.png": (saved(picture().resize((1, 1)), "PNG"), picture().resize((1, 1))),
    "thin.png": (saved(picture().resize((1, 5000)), "PNG"), picture().resize((1, 5000))),
}
ODD_NAMES = [b"with space.jpg", b"new\nline.jpg", b"\xff\xfe.jpg", b"x" * 246 + b".jpg"]


def corpus(root: Path) -> Path:
    """10 readable kinds, odd names, 1,000 mutations and unreadable files, among enough clean images."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    bad = {"empty.jpg": b"", "text.jpg": b"this is no picture", "bomb.png": bomb()}
    for kind in ("JPEG", "PNG"):
        data = saved(noise, kind)
        bad |= {f"cut-{share:02d}.{kind.lower()}": data[: 1 + len(data) * share // 21] for share in range(20)}
    good = {name: data for name, (data, _) in AS_THE_EYE_SEES_IT.items()}
    files = {f"train/REAL/{name}": data for name, data in {**bad, **good, **mutations(), "huge.png": huge()}.items()}
    files |= clean(3)
    write_folder(root, files)
    for number, name in enumerate(ODD_NAMES):
        with open(os.path.join(os.fsencode(root / "train/REAL"), name), "wb") as file:
            file.write(jpeg(7000 + number))
    (root / "train/REAL/loop.jpg").symlink_to(root / "train/REAL/loop.jpg")
    return root


def mutations() -> dict[str, bytes]:
    rng, original, made = random.Random(0), saved(picture().resize((48, 48)), "JPEG", quality=80), {}
    for number in range(1000):
        data = bytearray(original)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        made[f"mutation-{number:04d}.jpg"] = bytes(data)
    return made


def embed(data: Path, home: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run the command in a process of its own; returns its result and peak memory in MB."""
    most = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    code = (
        "import resource, sys\nfrom toolkit.cli import main as cli\n"
        f"try: cli.cli()\nfinally: print('PEAK', {most}, file=sys.stderr)"
    )
    words = ["embed", "--data", data, "--model", "nano", "--full", "--split", "none", "--cache", home / "cache"]
    words += ["--results", home / "results", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    peak = int(done.stderr.rsplit("PEAK", 1)[1].split()[0])
    return done, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], float]:
    home = tmp_path_factory.mktemp("bad")
    return home, *embed(corpus(home / "corpus"), home)


Embedded = tuple[Path, subprocess.CompletedProcess[str], float]


def test_many_bad_images_are_one_line_after_everything_readable_is_stored(embedded: Embedded) -> None:
    _, done, _ = embedded
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert done.returncode == 2 and len(errors) == 1 and "skipped.csv" in errors[0] and "Traceback" not in done.stderr


def test_every_image_is_either_embedded_or_listed_with_its_reason(embedded: Embedded) -> None:
    home, _, _ = embedded
    dataset = open_data(home / "corpus")
    hashed = hash_rows(dataset, dataset.rows)
    (record,) = find_encoders(home / "cache", lambda record: record.model == "nano")
    missing = set(Cache(home / "cache", record).missing_images(hashed["sha256"].drop_nulls().to_list()))
    unreadable = {path for path, key in hashed.select("path", "sha256").iter_rows() if key is None or key in missing}
    skipped = pl.read_csv(home / "results/skipped.csv", infer_schema=False)
    assert set(skipped["path"]) == unreadable and skipped["reason"].null_count() == 0
    reasons = dict(skipped.rows())
    names = {path.rsplit("/", 1)[1] for path in unreadable}
    assert {"empty.jpg", "text.jpg", "bomb.png", "loop.jpg"} <= names
    assert sum(name.startswith("cut-") for name in names) == 40
    assert 0 < sum(name.startswith("mutation-") for name in names) < 1000
    assert not names & set(AS_THE_EYE_SEES_IT) and len(names) < 1000
    assert reasons["train/REAL/empty.jpg"] == "empty file" and "900000000 pixels" in reasons["train/REAL/bomb.png"]


@pytest.mark.parametrize("name", AS_THE_EYE_SEES_IT)
def test_its_vector_is_that_of_a_clean_image_that_looks_the_same(embedded: Embedded, name: str) -> None:
    home, _, _ = embedded
    data, clean = AS_THE_EYE_SEES_IT[name]
    nano = openclip.load(openclip.source("nano", device="cpu"))
    cache = Cache(home / "cache", nano.record)
    (stored,) = cache.read_images([hash_of(data)])
    (expected,) = nano.embed_images(nano.preprocess(decode(saved(clean, "PNG")))[None])
    cosine = stored @ expected / np.linalg.norm(stored) / np.linalg.norm(expected)
    assert cosine > (0.98 if name == "turned.jpg" else 0.9999)


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_odd_names_are_embedded_like_any_other(embedded: Embedded) -> None:
    home, _, _ = embedded
    (record,) = find_encoders(home / "cache", lambda record: record.model == "nano")
    assert Cache(home / "cache", record).missing_images([hash_of(jpeg(7000 + n)) for n in range(4)]) == []


def test_bad_images_take_no_more_memory_than_is_stated(embedded: Embedded, tmp_path: Path) -> None:
    _, _, peak = embedded
    _, usual = embed(write_folder(tmp_path / "clean", clean(3)), tmp_path)
    assert peak < usual + MOST_MB
