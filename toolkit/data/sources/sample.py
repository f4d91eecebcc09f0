"""The built-in sample: crops of photographs from scikit-learn and scikit-image, and imitations of such crops.

REAL are 32x32 crops at several scales. FAKE are such crops re-synthesised by a small generative model, fitted to the
training crops: principal components of 8x8 patches (after Zoran & Weiss 2011), of which the strong ones are kept and
the weak ones are resampled. Structure survives while the finest texture is invented, which is what generators get
wrong, too.
"""

import io
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.manifest import Dataset, frame
from toolkit.storage import kept
from toolkit.version import code_version

SIZE = 32
PATCH = 8
SCALES = (32, 48, 64, 96)
COUNTS = {"train": 90, "test": 110}
TEST_SHARE = 0.35
LEAST_SPREAD = 6.0
STRIDE = 4
COMPONENTS_KEPT = 32
SEED = 20_260_101

PHOTOGRAPHS = {
    "astronaut": ("skimage", "astronaut.png"),
    "cat": ("skimage", "chelsea.png"),
    "coffee": ("skimage", "coffee.png"),
    "flower": ("sklearn", "flower.jpg"),
    "galaxies": ("skimage", "hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "motorcycle_left.png"),
    "retina": ("skimage", "retina.jpg"),
    "rocket": ("skimage", "rocket.jpg"),
    "temple": ("sklearn", "china.jpg"),
    "tissue": ("skimage", "ihc.png"),
}
"""Category -> the package and the file that its crops are cut from."""


MAKERS = ("numpy", "pillow", "scikit-image", "scikit-learn")
"""The packages whose versions decide the sample's bytes."""
RECORD = "sample.json"


def sample(folder: Path | None = None) -> Dataset:
    """The sample. Making it takes two to five seconds; `folder` is where its files are kept.

    Train and test crops come from disjoint parts of each photograph.
    """
    files = _stored(folder / RECORD) if folder else make()
    rows = [(path, parts[1], parts[2], parts[0]) for path in files for parts in [path.split("/")]]
    what = f"the built-in sample: {len(rows):,} crops of {len(PHOTOGRAPHS)} photographs, half of them re-synthesised"
    return Dataset("sample", what, frame(rows), files.__getitem__, "sample")


def _stored(record: Path) -> dict[str, bytes]:
    """The sample's files, from beside `record` if they are there and were made with these versions."""
    state = " ".join([code_version(), *map(version, MAKERS)])
    if found := kept.read(record, state, "the sample is made again"):
        facts, (data,) = found[0], found[1].values()
        pieces = [data[start:end] for start, end in pairwise(facts["ends"])]
        return dict(zip(facts["names"], pieces, strict=True))
    files = make()
    facts = {"names": list(files), "ends": np.cumsum([0, *map(len, files.values())]).tolist()}
    kept.write(record, state, facts, {".bin": b"".join(files.values())})
    return files


@lru_cache(maxsize=1)
def make() -> dict[str, bytes]:
    """Path -> the bytes of a PNG, in the order of the rows. They depend only on the versions of `MAKERS`."""
    rng = np.random.default_rng(SEED)
    real = {
        (split, category): _crops(part_of(photograph, split), 2 * COUNTS[split], rng)
        for category, photograph in ((name, photograph(*place)) for name, place in PHOTOGRAPHS.items())
        for split in COUNTS
    }
    generator = _Generator(np.concatenate([crops for (split, _), crops in real.items() if split == "train"]))
    files: dict[str, bytes] = {}
    for (split, category), crops in real.items():
        half = len(crops) // 2
        for label, pixels in (("REAL", crops[:half]), ("FAKE", generator.imitate(crops[half:], rng))):
            for number, image in enumerate(pixels):
                files[f"{split}/{label}/{category}/{number:04d}.png"] = _png(image)
    return {name: files[name] for name in sorted(files, key=lambda path: (path.rsplit("/", 1)[1], path))}


def photograph(package: str, name: str) -> np.ndarray:
    """`[H, W, 3]` uint8, read from the installed package's own folder: nothing is downloaded."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / ("data" if package == "skimage" else "datasets/images")
    return np.asarray(Image.open(folder / name).convert("RGB"))


def part_of(photograph: np.ndarray, split: str) -> np.ndarray:
    """`[H, W, 3]` uint8: the left part of a photograph for training, the right part for testing."""
    border = int(photograph.shape[1] * (1 - TEST_SHARE))
    return photograph[:, :border] if split == "train" else photograph[:, border:]


def _crops(part: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`[count, 32, 32, 3]` uint8: random squares of several sizes, scaled down; nearly uniform ones are rejected."""
    found: list[np.ndarray] = []
    seen: set[bytes] = set()
    while len(found) < count:
        side = int(rng.choice(SCALES))
        top, left = (int(rng.integers(0, length - side + 1)) for length in part.shape[:2])
        square = Image.fromarray(part[top : top + side, left : left + side])
        crop = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
        if crop.mean(axis=2).std() >= LEAST_SPREAD and crop.tobytes() not in seen:
            seen.add(crop.tobytes())
            found.append(crop)
    return np.stack(found)


class _Generator:
    """A Gaussian model of 8x8 patches. An imitation keeps a crop's strong components and resamples the weak ones."""

    def __init__(self, crops: np.ndarray):
        patches = _patches(crops[:: max(1, len(crops) // 600)])
        self.mean = patches.mean(axis=0)
        variances, vectors = np.linalg.eigh(np.cov(patches - self.mean, rowvar=False))
        self.vectors = vectors[:, ::-1]
        self.spreads = np.sqrt(np.maximum(variances[::-1], 0))

    def imitate(self, crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`[N, 32, 32, 3]` uint8 -> imitations of the same shape; overlapping patches are averaged."""
        codes = (_patches(crops) - self.mean) @ self.vectors
        weak = codes[:, COMPONENTS_KEPT:]
        # The amount of fine texture in each patch is kept, so that smooth areas stay smooth; its pattern is invented.
        amount = np.sqrt((weak**2).sum(axis=1, keepdims=True) / (self.spreads[COMPONENTS_KEPT:] ** 2).sum())
        codes[:, COMPONENTS_KEPT:] = rng.standard_normal(weak.shape) * self.spreads[COMPONENTS_KEPT:] * amount
        return _joined(codes @ self.vectors.T + self.mean, len(crops))


def _places() -> list[tuple[int, int]]:
    starts = range(0, SIZE - PATCH + 1, STRIDE)
    return [(top, left) for top in starts for left in starts]


def _patches(crops: np.ndarray) -> np.ndarray:
    """`[N, 32, 32, 3]` -> `[N x places, 192]` float64."""
    cut = [crops[:, top : top + PATCH, left : left + PATCH] for top, left in _places()]
    return np.stack(cut, axis=1).reshape(-1, PATCH * PATCH * 3).astype(np.float64)


def _joined(patches: np.ndarray, count: int) -> np.ndarray:
    total = np.zeros((count, SIZE, SIZE, 3))
    times = np.zeros((SIZE, SIZE, 1))
    cut = patches.reshape(count, -1, PATCH, PATCH, 3)
    for number, (top, left) in enumerate(_places()):
        total[:, top : top + PATCH, left : left + PATCH] += cut[:, number]
        times[top : top + PATCH, left : left + PATCH] += 1
    return np.clip(np.floor(total / times + 0.5), 0, 255).astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=1)
    return data.getvalue()
