"""Find test images that are near copies of a training image: saved again, shifted by a pixel or two, or mirrored.

Exact copies are found by their hash (`data.split`). For near copies, each image is reduced to a thumbnail. The training
images nearest to a test image, by the colours of 8 x 8 cells, are candidates. A candidate is a near copy if, after
alignment, the fine structure of the two thumbnails agrees in each quarter.

Measured against two other ways on 3,000 copies planted among 20,000 images of CIFAKE (`python -m benchmarks
near-copies`): this finds all of them, and flags 20 of 4,000 test images, of which 19 are copies as judged by eye.
Perceptual hashes (imagehash's pHash) that may differ in 10 of 64 bits find 93 % of the images shifted by a pixel and 50
% of those shifted diagonally, and flag 283 test images; with 4 bits it is 17 %, 3 % and 6. The ten nearest in nano's
embedding lack 17 % and 30 % of what was shifted. The thresholds were chosen on these images; on all of CIFAR-10 they
take 304 of 10,000 test images for copies, 79 of 80 rightly by sight.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from toolkit.data.images import decode
from toolkit.data.manifest import Dataset, Progress
from toolkit.data.split import NOTHING, Split
from toolkit.errors import CacheError, ImageError
from toolkit.storage.damage import record_if_whole
from toolkit.storage.libraries import faiss
from toolkit.storage.records import write_record

FOLDER = "near-copies"
MOST_NAMED = 3
VERSION = 1
"""The version of stored results; to be raised when the method changes."""
MOST_IMAGES = 200_000
"""Data with more images is not searched: the time grows with train times test."""
SIDE, CELLS = 32, 8
MOST_SHIFT = 2
"""In pixels of the thumbnail, in each direction."""
CANDIDATES = 10
LEAST_COLOURS = 0.8
"""The least correlation of the cells of two candidates. A shift by one pixel leaves 0.83 or more."""
ALIKE = 0.8, 0.52
"""The least correlations of near copies: of structures of 3 to 9 pixels, in the worst quarter; and of the finest
structure."""
FLAT = 5.0
"""A quarter is flat if those structures have a smaller standard deviation (grey values). A single edge in the same
place makes flat quarters alike, so `SAME` is required as well."""
SAME = 1.5, 0.8
"""The largest difference of the structures in a quarter (RMS, grey values), and the least correlation of the finest
structure. Planted copies differ by 1.0, crops of different photographs by 2.0."""
NOISE = 9.0
"""The variance of grey values that recompression causes. It keeps flat quarters from being compared by their noise."""
PAIRS_AT_ONCE, READ_AT_ONCE = 2048, 256


@dataclass(frozen=True)
class NearCopy:
    """A test image and the training image it copies: paths, SHA-256 (hex), and `how`: `saved again`, `shifted` or
    `mirrored`."""

    test: str
    train: str
    test_sha256: str
    train_sha256: str
    how: str

    def __str__(self) -> str:
        return f"{self.test} of {self.train}, {self.how}"


class NearCopies:
    """Searches a data set for near copies. Each image is read once, and results are stored in `cache`."""

    def __init__(self, dataset: Dataset, cache: Path, on_progress: Progress | None = None):
        self.dataset, self.cache, self.on_progress = dataset, cache, on_progress
        self._thumbnails: dict[str, tuple[bytes, bytes] | None] = {}
        self._unread: set[str] = set()

    def notice(self, data: bytes) -> None:
        """Decode an image and keep its thumbnail, so that `among` need not read it. Raises ImageError."""
        made = thumbnail(decode(data))
        if len(self._thumbnails) < MOST_IMAGES:
            self._thumbnails[hashlib.sha256(data).hexdigest()] = made

    def among(self, train: pl.DataFrame, tests: pl.DataFrame) -> list[NearCopy] | None:
        """The near copies among the rows `tests` of images in `train` (columns path, sha256), in the order of `tests`.

        Of images with equal bytes the first counts; they are not near copies of each other. Images that cannot be
        decoded are skipped. None if there are more than `MOST_IMAGES`.
        """
        train, tests = (rows.drop_nulls("sha256").unique("sha256", maintain_order=True) for rows in (train, tests))
        tests = tests.filter(~pl.col("sha256").is_in(train["sha256"].implode()))
        if len(train) + len(tests) > MOST_IMAGES:
            return None
        of_test, of_train = (dict(rows.select("sha256", "path").iter_rows()) for rows in (tests, train))
        return [NearCopy(of_test[a], of_train[b], a, b, how) for a, b, how in self._remembered(train, tests)]

    def _remembered(self, train: pl.DataFrame, tests: pl.DataFrame) -> list[tuple[str, str, str]]:
        """(test SHA-256, train SHA-256, how) from the stored record; it is made if there is none."""
        digest = hashlib.sha256(f"{VERSION}".encode())
        for rows in (train, tests):
            digest.update("".join(rows["sha256"]).encode() + b"\n")
        place = self.cache / FOLDER / f"{digest.hexdigest()[:16]}.json"
        if known := record_if_whole(place, "near copies are looked for again"):
            return [(a, b, how) for a, b, how in known["pairs"]]
        found = self._find(train, tests)
        if not self._unread:
            with suppress(CacheError):  # a read-only cache: next time it is found out again
                write_record(place, {"pairs": found})
        return found

    def _find(self, train: pl.DataFrame, tests: pl.DataFrame) -> list[tuple[str, str, str]]:
        self._read(pl.concat([train.select("path", "sha256"), tests.select("path", "sha256")]))
        old, new = self._whole(train["sha256"]), self._whole(tests["sha256"])
        if not old or not new:
            return []
        (greys, colours), (test_greys, test_colours) = self._arrays(old), self._arrays(new)
        which, of = candidates(colours, test_colours)
        found: dict[int, tuple[float, int, str]] = {}
        for part in range(0, len(which), PAIRS_AT_ONCE):
            tested, trained = which[part : part + PAIRS_AT_ONCE], of[part : part + PAIRS_AT_ONCE]
            likeness, hows = compare(test_greys[tested], greys[trained])
            for a, b, alike, how in zip(tested.tolist(), trained.tolist(), likeness.tolist(), hows, strict=True):
                if alike > found.get(a, (0.0,))[0]:
                    found[a] = alike, b, how
        return [(new[a], old[b], how) for a, (_, b, how) in sorted(found.items())]

    def _read(self, rows: pl.DataFrame) -> None:
        """Thumbnails of the images that have none yet; None for one that cannot be decoded."""
        missing = [(path, key) for path, key in rows.iter_rows() if key not in self._thumbnails or key in self._unread]
        self._unread -= {key for _, key in missing}
        parts = [missing[start : start + READ_AT_ONCE] for start in range(0, len(missing), READ_AT_ONCE)]
        done = 0
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            for part, made in zip(parts, threads.map(self._thumbnails_of, parts), strict=True):
                self._thumbnails.update(zip((key for _, key in part), made, strict=True))
                done += len(part)
                if self.on_progress:
                    self.on_progress(done, len(missing))

    def _thumbnails_of(self, part: list[tuple[str, str]]) -> list[tuple[bytes, bytes] | None]:
        return [self._thumbnail(path, key) for path, key in part]

    def _thumbnail(self, path: str, key: str) -> tuple[bytes, bytes] | None:
        try:
            data = self.dataset.read_hashed(path, key)
        except ImageError:  # it may be read the next time
            self._unread.add(key)
            return None
        try:
            return thumbnail(decode(data))
        except ImageError:
            return None

    def _whole(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if self._thumbnails.get(key)]

    def _arrays(self, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Grey values `[N, SIDE, SIDE]` and colours `[N, CELLS, CELLS, 3]`, both uint8."""
        both = [self._thumbnails[key] or (b"", b"") for key in keys]
        greys, colours = (np.frombuffer(b"".join(parts), np.uint8) for parts in zip(*both, strict=True))
        return greys.reshape(-1, SIDE, SIDE), colours.reshape(-1, CELLS, CELLS, 3)


def facts(found: list[NearCopy] | None) -> dict[str, Any]:
    """What `data` reports about near copies: their number and the first few; None if they were not searched for."""
    if found is None:
        return {"near_copies": None, "near_copy_examples": []}
    examples = [{"test": one.test, "train": one.train, "how": one.how} for one in found[:MOST_NAMED]]
    return {"near_copies": len(found), "near_copy_examples": examples}


def notes(look: NearCopies, splits: Sequence[Split]) -> list[str]:
    """What `compare` reports about near copies among the splits' test images, and about those it dropped."""
    passed_over = max((split.near_copies for split in splits), default=0)
    said = [f"Passed over in testing: {passed_over} near copies of training images."] if passed_over else []
    looked = [look.among(split.train, pl.concat([split.base, split.novel])) for split in splits]
    if None in looked:
        return [*said, f"Near copies were not looked for: there are more than {MOST_IMAGES:,} images."]
    found = {one.test: one for some in looked for one in some or ()}
    if not found:
        return said
    are = "1 test image is a near copy" if len(found) == 1 else f"{len(found)} test images are near copies"
    examples = "; ".join(map(str, list(found.values())[:MOST_NAMED]))
    return [*said, f"{are} of training images ({examples}): --drop-near-copies passes them over."]


def select_without(look: NearCopies, choose: Callable[[pl.Series], Split]) -> Split:
    """The split that `choose` makes, without near copies of training images in its test sets.

    `choose` takes the SHA-256 of test images to skip. It is called until the test images that replace them hold no near
    copy either.
    """
    passed_over = NOTHING
    while True:
        split = choose(passed_over)
        found = look.among(split.train, pl.concat([split.base, split.novel]))
        if not found:
            return split
        passed_over = pl.concat([passed_over, pl.Series("sha256", [one.test_sha256 for one in found])])


def thumbnail(image: Image.Image) -> tuple[bytes, bytes]:
    """The grey values of an RGB image's `SIDE` x `SIDE` cells, and the colours of `CELLS` x `CELLS`, row by row."""
    small = image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return small.convert("L").tobytes(), small.resize((CELLS, CELLS), Image.Resampling.BOX).tobytes()


def candidates(train: np.ndarray, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours `[N, CELLS, CELLS, 3]` and `[Q, …]` -> pairs to look at closely: row numbers in `tests`, and in `train`.

    Each training image is searched as it is and mirrored.
    """
    library = faiss()
    both = np.concatenate([_unit(train), _unit(train[:, :, ::-1])])
    nearest = min(CANDIDATES, len(both))
    alike, rows = library.knn(_unit(tests), both, nearest, metric=library.METRIC_INNER_PRODUCT)
    which, place = np.nonzero(alike >= LEAST_COLOURS)
    pairs = np.unique(np.stack([which, rows[which, place] % len(train)], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def compare(tests: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The likeness of each pair of images (grey values `[N, SIDE, SIDE]` uint8): float32 `[N]`, 0 if they are not near
    copies; and how the test image differs."""
    a, b, shifts = _laid_upon_each_other(tests, train)
    middle, of, detail = _structure(a), _structure(b), _correlation(_detail(a), _detail(b))
    quarters = list(_quarters(a.shape[1]))
    worst = np.min([_correlation(middle[part], of[part], NOISE) for part in quarters], axis=0)
    flattest = np.min([one[part].std((1, 2)) for part in quarters for one in (middle, of)], axis=0)
    differ = np.sqrt(np.max([((middle - of)[part] ** 2).mean((1, 2)) for part in quarters], axis=0))
    alike = (worst >= ALIKE[0]) & (detail >= ALIKE[1]) & (flattest >= FLAT)
    same = (differ <= SAME[0]) & (detail >= SAME[1])
    likeness = np.where(alike | same, worst, 0)
    return likeness, ["mirrored" if m else "shifted" if x or y else "saved again" for m, x, y in shifts.tolist()]


def _laid_upon_each_other(tests: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The centre of each test image, the best matching window of its training image, and that window's position: `[N,
    3]` of mirrored (0 or 1) and shift right and down."""
    edge, inner = MOST_SHIFT + 1, SIDE - 2 * (MOST_SHIFT + 1)
    a = tests[:, edge:-edge, edge:-edge].astype(np.float32)
    best, where = np.full(len(a), -2, np.float32), np.zeros((len(a), 3), int)
    found = np.empty((len(a), inner + 2, inner + 2), np.float32)  # with a pixel around, for what `_half_steps` needs
    for mirrored in (0, 1):
        seen = train[:, :, ::-1] if mirrored else train
        for x, y in _nearest_first():
            top, left = MOST_SHIFT + y, MOST_SHIFT + x
            b = seen[:, top : top + inner + 2, left : left + inner + 2].astype(np.float32)
            fit = _correlation(a, b[:, 1:-1, 1:-1])
            better = fit > best
            best[better], found[better], where[better] = fit[better], b[better], (mirrored, x, y)
    return a, _half_steps(a, found), where


def _half_steps(a: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """The centre window of `wide`, moved by half a pixel where that fits `a` better. Half a pixel of the thumbnail is
    one pixel of an image twice its size."""
    middle = wide[:, 1:-1, 1:-1]
    result, best = middle.copy(), _correlation(a, middle)
    for x, y in _nearest_first(1)[1:]:
        b = (middle + wide[:, 1 + y : 1 + y + a.shape[1], 1 + x : 1 + x + a.shape[2]]) / 2
        fit = _correlation(a, b)
        better = fit > best
        best[better], result[better] = fit[better], b[better]
    return result


def _nearest_first(most: int = MOST_SHIFT) -> list[tuple[int, int]]:
    steps = range(-most, most + 1)
    return sorted(((x, y) for x in steps for y in steps), key=lambda one: abs(one[0]) + abs(one[1]))


def _quarters(side: int) -> Iterator[tuple[slice, slice, slice]]:
    halves = slice(None, side // 2), slice(side // 2, None)
    return ((slice(None), rows, columns) for rows in halves for columns in halves)


def _structure(grey: np.ndarray) -> np.ndarray:
    """Structures of 3 to 9 pixels: they survive compression and differ between pictures."""
    from scipy.ndimage import uniform_filter

    fine, coarse = (uniform_filter(grey, (0, side, side)) for side in (3, 9))
    return fine - coarse


def _detail(grey: np.ndarray) -> np.ndarray:
    """Each inner pixel against its four neighbours."""
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return 4 * grey[:, 1:-1, 1:-1] - around


def _correlation(a: np.ndarray, b: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Pearson's correlation of each pair of images `[N, …]`, with a shared variance of `noise` added to both."""
    a, b = (one.reshape(len(one), -1) - one.reshape(len(one), -1).mean(1, keepdims=True) for one in (a, b))
    common = noise * a.shape[1]
    products = np.einsum("ij,ij->i", a, b) + common
    squares = (np.einsum("ij,ij->i", a, a) + common) * (np.einsum("ij,ij->i", b, b) + common)
    return products / np.sqrt(np.maximum(squares, 1e-6))


def _unit(colours: np.ndarray) -> np.ndarray:
    """Colours as centred float32 vectors of unit length: `[N, CELLS * CELLS * 3]`."""
    flat = colours.reshape(len(colours), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
