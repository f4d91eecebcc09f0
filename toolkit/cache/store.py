"""The embedding cache: `<root>/<encoder>/` with write-once HDF5 segments, and `encoder.json` saying whose they are."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.cache import segments
from toolkit.cache.key_index import KeyIndex
from toolkit.cache.measured import Measured, measured_over
from toolkit.data.content_hashes import key_bytes
from toolkit.encoders.record import EncoderRecord
from toolkit.errors import CacheError, CannotRead, MissingEmbeddings
from toolkit.storage.damage import set_aside
from toolkit.storage.records import read_record, sweep, write_record
from toolkit.storage.work import Work

RECORD = "encoder.json"


class Cache:
    """One encoder's vectors. Several processes may append and read at the same time.

    `record` is the encoder's. `damaged` has a line for each damaged file that was set aside; its rows count as missing,
    so that the next `embed` makes them again.
    """

    def __init__(self, root: Path, record: EncoderRecord):
        self.record = record
        self.folder = folder_of(root, record)
        self.damaged: list[str] = []
        self._images: dict[Path, int] = {}
        self._index = KeyIndex()
        self._prompts: dict[Path, list[str]] = {}
        self._bad: set[Path] = set()
        self._swept = False
        self._turn = threading.RLock()  # while images are embedded, one thread asks what is missing and another stores

    def append_images(self, keys: Sequence[str], vectors: np.ndarray, work: Work | None = None) -> None:
        """Store vectors `[N, D]` under their images' SHA-256 (hex), as `EncoderRecord.stored_as`, and what making them
        took, if it was measured. Raises CacheError if that fails."""
        self._check(vectors, len(keys))
        self._introduce()
        numbers = key_bytes(keys).view(np.uint8).reshape(-1, 32)
        self._store("images", {"sha256": numbers}, vectors, work)

    def append_prompts(self, prompts: Sequence[str], vectors: np.ndarray, work: Work | None = None) -> None:
        """Store vectors `[P, D]` float32 under their prompts; see `append_images`. Raises CacheError if that fails."""
        self._check(vectors, len(prompts))
        self._introduce()
        texts = [prompt.encode() for prompt in prompts]
        width = max(map(len, texts), default=1) or 1
        self._store("texts", {"prompt": np.array(texts, f"S{width}")}, vectors, work)

    def _store(self, kind: str, keys: dict[str, np.ndarray], vectors: np.ndarray, work: Work | None) -> None:
        stored = vectors.astype(self.record.stored_as, copy=False)
        segments.write_segment(self.folder, kind, keys, stored, self.record.plain(), work)

    def missing_images(self, keys: Sequence[str]) -> list[str]:
        """The keys without a vector, in their order, each once."""
        keys = list(dict.fromkeys(keys))
        asked, places = np.unique(key_bytes(keys), return_inverse=True)
        found = np.zeros(len(asked), bool)
        with self._turn:
            for _, which, _ in self._holding(asked):
                found[which] = True
        return [key for key, have in zip(keys, found[places].tolist(), strict=True) if not have]

    def missing_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The prompts without a vector, in their order, each once; an empty list for an encoder without prompts."""
        if not (self.record.has_text or self.record.has_label_vectors):
            return []
        self._refresh_prompts()
        have = {prompt for stored in self._prompts.values() for prompt in stored}
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in have]

    def read_images(self, keys: Sequence[str]) -> np.ndarray:
        """The vectors of these keys, `[N, D]` float32. Raises MissingEmbeddings if one is missing."""
        asked, first, places = np.unique(key_bytes(keys), return_index=True, return_inverse=True)
        result = np.empty((len(keys), self.record.dimension), dtype=np.float32)
        found = np.zeros(len(asked), bool)
        with self._turn:
            for path, which, rows in self._holding(asked):
                new = ~found[which]  # if a key is stored twice, the first segment counts
                found[which] = True
                self._copy(path, first[which[new]], rows[new], result)
        if not found.all():
            missing = len(found) - int(found.sum())
            raise MissingEmbeddings(f"{missing} of {len(asked)} images are not embedded: run cli.py embed.")
        again = np.flatnonzero(first[places] != np.arange(len(keys)))
        result[again] = result[first[places[again]]]
        return result

    def read_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """The vectors of these prompts, `[P, D]` float32. Raises MissingEmbeddings if one is missing."""
        missing = self.missing_prompts(prompts)
        if missing:
            raise MissingEmbeddings(f"The prompt {missing[0]!r} is not embedded: run cli.py embed.")
        found: dict[str, np.ndarray] = {}
        for path in sorted(self._prompts, reverse=True):
            vectors = np.concatenate([part for _, part in segments.read_vectors(path)])
            found.update(zip(self._prompts[path], vectors, strict=True))
        return np.stack([found[prompt] for prompt in prompts])

    def count_images(self) -> int:
        """How many images have a vector."""
        return len(self._distinct_keys())

    def image_keys(self) -> list[str]:
        """The SHA-256 (hex) of every image with a vector, sorted."""
        text = self._distinct_keys().tobytes().hex()
        return [text[start : start + 64] for start in range(0, len(text), 64)]

    def _distinct_keys(self) -> np.ndarray:
        self._refresh_images()
        stored = [segments.read_keys(path) for path in self._images]
        return np.unique(np.concatenate(stored)) if stored else np.empty(0, "S32")

    def count_prompts(self) -> int:
        """How many prompts have a vector."""
        self._refresh_prompts()
        return len({prompt for stored in self._prompts.values() for prompt in stored})

    def measured(self, kind: str = "images") -> Measured:
        """What embedding took, over all vectors of a kind (`images` or `texts`) in this cache."""
        self._refresh_images() if kind == "images" else self._refresh_prompts()
        return measured_over(
            [segments.read_work(path) for path in (self._images if kind == "images" else self._prompts)]
        )

    def _holding(self, asked: np.ndarray) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """For each segment with some of the `asked` keys (`[N]` S32, sorted, distinct), oldest first: its path, the
        indices of these keys in `asked`, and their rows in the segment."""
        self._refresh_images()
        if not len(asked):
            return
        paths = {number: path for path, number in self._images.items()}
        for path in sorted(paths[number] for number in self._index.segments_of(asked)):
            stored = segments.read_keys(path)
            places = np.minimum(np.searchsorted(asked, stored), len(asked) - 1)
            here = np.flatnonzero(asked[places] == stored)
            yield path, places[here], here

    def _copy(self, path: Path, places: np.ndarray, rows: np.ndarray, result: np.ndarray) -> None:
        """Copy the ascending `rows` of a segment to their `places` in `result`."""
        for start, vectors in segments.read_vectors(path):
            first, after = np.searchsorted(rows, (start, start + len(vectors)))
            result[places[first:after]] = vectors[rows[first:after] - start]

    def _check(self, vectors: np.ndarray, count: int) -> None:
        if vectors.shape != (count, self.record.dimension):
            raise CacheError(f"Vectors of shape {vectors.shape} do not belong to {self.folder.name}.")
        if not np.isfinite(vectors).all():
            model, precision = self.record.model, self.record.precision
            broken = "its weights are broken, perhaps because training diverged: use others"
            way_out = broken if precision == "fp32" else "use --precision fp32"
            raise CacheError(f"{model} made vectors that are not numbers (in {precision}): {way_out}.")

    def _introduce(self) -> None:
        if not self._swept:
            sweep(self.folder)
            self._swept = True
        if not (self.folder / RECORD).exists():
            write_record(self.folder / RECORD, self.record.plain())

    def _refresh_images(self) -> None:
        before = len(self._images)
        new = list(self._new_whole("images", self._images))
        if len(self._images) < before:  # segments were removed: rebuild the index without them
            new, self._index, self._images = [*self._images, *new], KeyIndex(), {}
        numbers = range(len(self._images), len(self._images) + len(new))
        self._index.add([segments.read_keys(path) for path in new], numbers)
        self._images.update(zip(new, numbers, strict=True))

    def _refresh_prompts(self) -> None:
        for path in self._new_whole("texts", self._prompts):
            self._prompts[path] = segments.read_prompts(path)

    def _new_whole(self, kind: str, known: dict[Path, Any]) -> Iterable[Path]:
        """New undamaged segments. Forgets removed ones, and sets damaged ones aside."""
        here = segments.list_segments(self.folder, kind)
        for gone in set(known).difference(here):
            del known[gone]
        for path in here:
            if path in known or path in self._bad:
                continue
            if segments.is_whole(path):
                yield path
            elif path.exists():
                self._bad.add(path)
                self.damaged.append(set_aside(path, "its rows are embedded again by the next embed or finetune"))


def folder_of(root: Path, record: EncoderRecord) -> Path:
    """`<model>-<pretrained>-<identity>`, in safe characters; or the existing folder of that identity, under whatever
    name."""
    known = next((folder for folder in encoder_folders(root) if folder.name.endswith(f"-{record.identity}")), None)
    name = re.sub(r"[^A-Za-z0-9._]+", "-", f"{record.model}-{record.pretrained}").strip("-.")[:80]
    return known or root / f"{name}-{record.identity}"


def find_encoders(root: Path, wanted: Callable[[EncoderRecord], bool] = lambda _: True) -> list[EncoderRecord]:
    """The records of the encoders in the cache that `wanted` selects; needs no torch."""
    records = (encoder_record(folder) for folder in encoder_folders(root))
    return [record for record in records if record and wanted(record)]


def encoder_record(folder: Path) -> EncoderRecord | None:
    """An encoder's record, restored from one of its segments if `encoder.json` is lost. None if there is neither.

    Raises CacheError for an undamaged record of another version, and CannotRead.
    """
    try:
        plain = read_record(folder / RECORD)
    except CannotRead:
        raise
    except CacheError:
        set_aside(folder / RECORD, "it is restored from the encoder's vectors, or made again")
    else:
        return EncoderRecord.of(plain)
    for path in [*segments.list_segments(folder, "texts"), *segments.list_segments(folder, "images")]:
        if segments.is_whole(path):
            record = EncoderRecord.of(segments.read_about(path))
            with suppress(CacheError):  # a read-only cache is still readable
                write_record(folder / RECORD, record.plain())
            return record
    return None


def remember_name(root: Path, record: EncoderRecord) -> EncoderRecord:
    """The cache's record of this identity, to which the names in `record` are added.

    The same weights may have several tags or files. Their vectors are in one folder, found under each of these names.
    Returns `record` if the cache does not have the identity.
    """
    known = next(iter(find_encoders(root, lambda one: one.identity == record.identity)), None)
    if known is None or set(record.known_as) <= set(known.known_as):
        return known or record
    known = replace(known, known_as=(*known.known_as, *record.known_as))
    write_record(folder_of(root, known) / RECORD, known.plain())
    return known


def encoder_folders(root: Path) -> list[Path]:
    """The folders of the encoders in the cache."""
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if f.is_dir() and ((f / RECORD).exists() or any(f.glob("*.h5"))))


class Together:
    """Several caches filled in one pass, by an encoder that concatenates their vectors."""

    def __init__(self, *caches: Cache):
        self.caches = caches
        self.folder = caches[0].folder
        self.record = caches[0].record

    def missing_images(self, keys: Sequence[str]) -> list[str]:
        """The keys missing in any of the caches, in their order, each once."""
        lacking = {key for cache in self.caches for key in cache.missing_images(keys)}
        return [key for key in dict.fromkeys(keys) if key in lacking]

    def append_images(self, keys: Sequence[str], vectors: np.ndarray, work: Work | None = None) -> None:
        """Store vectors `[N, sum of the dimensions]` under their images' SHA-256 (hex), each part in its cache.

        `work` counts whole in each, as one pass made both; of images that a cache has already it gets no share."""
        start = 0
        for cache in self.caches:
            mine = vectors[:, start : (start := start + cache.record.dimension)]
            lacking = set(cache.missing_images(keys))
            rows = [row for row, key in enumerate(keys) if key in lacking]
            if rows:
                share = replace(work, seconds=work.seconds * len(rows) / len(keys)) if work else None
                cache.append_images([keys[row] for row in rows], np.ascontiguousarray(mine[rows]), share)
