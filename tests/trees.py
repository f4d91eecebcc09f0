"""Small generated data sets."""

import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.sources.cifake import CATEGORIES


def jpeg(seed: int, label: str = "REAL", size: int = 32) -> bytes:
    """A small JPEG: noise over a colour; FAKE ones are smoother, so that they can be told apart."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 40 if label == "REAL" else 12, (size, size, 3))
    pixels = np.clip(rng.integers(60, 200, 3) + grain, 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=92)
    return data.getvalue()


def cifake_files(train: int, test: int, suffixes: tuple[int, ...] = (1, 2, 4, 6)) -> dict[str, bytes]:
    """Names and bytes as Kaggle's archive has them: `train` and `test` numbers of each category and label."""
    files, seed = {}, 0
    for split, count in (("train", train), ("test", test)):
        for label in ("FAKE", "REAL"):
            for number in range(count):
                for suffix in suffixes:
                    assert suffix in CATEGORIES
                    seed += 1
                    name = f"{number:04d}.jpg" if suffix == 1 else f"{number:04d} ({suffix}).jpg"
                    files[f"{split}/{label}/{name}"] = jpeg(seed, label)
    return files


def coloured_files(labels: Sequence[str], train: int, test: int) -> dict[str, bytes]:
    """`split/label/N.jpg`: so many images of each label, noise over a colour that is the label's own."""
    files, rng = {}, np.random.default_rng(0)
    colours = np.random.default_rng(1).integers(40, 216, (len(labels), 3))
    for split, count in (("train", train), ("test", test)):
        for label, colour in zip(labels, colours, strict=True):
            for number in range(count):
                pixels, data = colour + rng.normal(0, 30, (32, 32, 3)), io.BytesIO()
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=92)
                files[f"{split}/{label}/{number}.jpg"] = data.getvalue()
    return files


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """The files below `root`."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """The files as a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """The files as a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@contextmanager
def out_of_reach(path: Path) -> Iterator[None]:
    """Inside the block the file is there and cannot be read, not even by root: a folder has its name."""
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()  # it is still there: nobody set it aside
        path.write_bytes(data)
