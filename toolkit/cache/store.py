"""The embedding cache: `<root>/<encoder>/` with write-once HDF5 segments, and `encoder.json` saying whose they are."""

import hashlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.cache import segments
from toolkit.cache.key_index import KeyIndex
from toolkit.data import unreadable
from toolkit.errors import CacheError, MissingEmbeddings
from toolkit.storage.damage import set_aside
from toolkit.storage.records import read_record, sweep, write_record

RECORD = "encoder.json"


class Cache:
    """One encoder's vectors. Several processes may append and read at once without knowing of each other.

    `record` is the encoder's (`Encoder.record`); `damaged` names each file that was found damaged and set aside: its
    rows count as missing, so that the next `embed` makes them again.
    """

    def __init__(self, root: Path, record: dict[str, Any]):
        self.record = record
        self.folder = root / folder_name(record)
        self.damaged: list[str] = []
        self._images: dict[Path, int] = {}
        self._index = KeyIndex()
        self._prompts: dict[Path, list[str]] = {}
        self._bad: set[Path] = set()
        self._swept = False

    def append_images(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Store vectors `[N, D]` float32 under their images' SHA-256 (hex). Raises CacheError where it cannot."""
        self._check(vectors, len(keys))
        self._introduce()
        numbers = segments.key_bytes(keys).view(np.uint8).reshape(-1, 32)
        segments.write_segment(self.folder, "images", {"sha256": numbers}, vectors, self.record)

    def append_prompts(self, prompts: Sequence[str], vectors: np.ndarray) -> None:
        """Store vectors `[P, D]` float32 under their prompts. Raises CacheError where it cannot."""
        self._check(vectors, len(prompts))
        self._introduce()
        texts = [prompt.encode() for prompt in prompts]
        width = max(map(len, texts), default=1) or 1
        segments.write_segment(self.folder, "texts", {"prompt": np.array(texts, f"S{width}")}, vectors, self.record)

    def missing_images(self, keys: Sequence[str]) -> list[str]:
        """Which of the keys have no vector yet: in their order, each once."""
        keys = list(dict.fromkeys(keys))
        asked, places = np.unique(segments.key_bytes(keys), return_inverse=True)
        found = np.zeros(len(asked), bool)
        for _, which, _ in self._holding(asked):
            found[which] = True
        return [key for key, have in zip(keys, found[places].tolist(), strict=True) if not have]

    def missing_prompts(self, prompts: Sequence[str]) -> list[str]:
        """Which of the prompts have no vector yet: in their order, each once."""
        self._refresh_prompts()
        have = {prompt for stored in self._prompts.values() for prompt in stored}
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in have]

    def read_images(self, keys: Sequence[str]) -> np.ndarray:
        """The vectors of these keys, `[N, D]` float32. Raises MissingEmbeddings where one is absent."""
        asked, first, places = np.unique(segments.key_bytes(keys), return_index=True, return_inverse=True)
        result = np.empty((len(keys), self.record["dimension"]), dtype=np.float32)
        found = np.zeros(len(asked), bool)
        for path, which, rows in self._holding(asked):
            new = ~found[which]  # of a key stored twice, the first segment's row
            found[which] = True
            self._copy(path, first[which[new]], rows[new], result)
        if not found.all():
            missing = len(found) - int(found.sum())
            raise MissingEmbeddings(f"{missing} of {len(asked)} images are not embedded: run cli.py embed.")
        again = np.flatnonzero(first[places] != np.arange(len(keys)))
        result[again] = result[first[places[again]]]
        return result

    def read_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """The vectors of these prompts, `[P, D]` float32. Raises MissingEmbeddings where one is absent."""
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
        self._refresh_images()
        stored = [segments.read_keys(path) for path in self._images]
        return len(np.unique(np.concatenate(stored))) if stored else 0

    def count_prompts(self) -> int:
        """How many prompts have a vector."""
        self._refresh_prompts()
        return len({prompt for stored in self._prompts.values() for prompt in stored})

    def _holding(self, asked: np.ndarray) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Each segment, oldest first, that holds some of the `asked` keys (`[N]` S32, sorted, distinct): its path,
        which of them those are, and in which of its rows they lie."""
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
        """Copy the `rows` of a segment, which ascend, to their `places` in `result`."""
        for start, vectors in segments.read_vectors(path):
            first, after = np.searchsorted(rows, (start, start + len(vectors)))
            result[places[first:after]] = vectors[rows[first:after] - start]

    def _check(self, vectors: np.ndarray, count: int) -> None:
        if vectors.shape != (count, self.record["dimension"]):
            raise CacheError(f"Vectors of shape {vectors.shape} do not belong to {self.folder.name}.")
        if not np.isfinite(vectors).all():
            raise CacheError(
                f"{self.record['model']} made vectors that are not numbers (in {self.record['precision']}): "
                "use --precision fp32."
            )

    def _introduce(self) -> None:
        if not self._swept:
            sweep(self.folder)
            self._swept = True
        if not (self.folder / RECORD).exists():
            write_record(self.folder / RECORD, self.record)

    def _refresh_images(self) -> None:
        before = len(self._images)
        new = list(self._new_whole("images", self._images))
        if len(self._images) < before:  # segments are gone: their rows must not be found any more
            new, self._index, self._images = [*self._images, *new], KeyIndex(), {}
        numbers = range(len(self._images), len(self._images) + len(new))
        self._index.add([segments.read_keys(path) for path in new], numbers)
        self._images.update(zip(new, numbers, strict=True))

    def _refresh_prompts(self) -> None:
        for path in self._new_whole("texts", self._prompts):
            self._prompts[path] = segments.read_prompts(path)

    def _new_whole(self, kind: str, known: dict[Path, Any]) -> Iterable[Path]:
        """Segments that are not known yet and whole; forgets those that are gone; sets the damaged ones aside."""
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


def folder_name(record: dict[str, Any]) -> str:
    """`<model>-<pretrained>-<identity>`, of harmless characters."""
    name = f"{record['model']}-{record['pretrained']}"
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:80] + f"-{record['identity']}"


def find_encoders(root: Path, **fields: Any) -> list[dict[str, Any]]:
    """The records of the encoders in the cache that have all these fields; needs no torch."""
    records = (encoder_record(folder) for folder in _folders(root))
    return [record for record in records if record and all(record.get(name) == fields[name] for name in fields)]


def encoder_record(folder: Path) -> dict[str, Any] | None:
    """An encoder's record; from one of its segments where `encoder.json` is lost. None where neither is left."""
    try:
        return read_record(folder / RECORD)
    except CacheError:
        set_aside(folder / RECORD, "the encoder's vectors say the same, or it is made anew")
    for path in [*segments.list_segments(folder, "texts"), *segments.list_segments(folder, "images")]:
        if segments.is_whole(path):
            record = segments.read_about(path)
            _mend(folder, record)
            return record
    return None


def list_encoders(root: Path) -> list[dict[str, Any]]:
    """What the cache holds: one dict an encoder with its record, rows, bytes and the time of the last change."""
    found = []
    for folder in _folders(root):
        record = encoder_record(folder)
        if record is None:
            continue
        cache = Cache(root, record)
        cache.folder = folder
        files = [path.stat() for path in folder.glob("*") if path.is_file()]
        found.append(
            {
                "encoder": folder.name,
                "identity": record["identity"],
                "kind": record["kind"],
                "images": cache.count_images(),
                "prompts": cache.count_prompts(),
                "bytes": sum(file.st_size for file in files),
                "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(file.st_mtime for file in files))),
            }
        )
    return found


def verify(root: Path) -> list[dict[str, Any]]:
    """Walk everything in the cache: one dict a file (path, state `whole` or `damaged`). Changes nothing."""
    report = []
    for folder in _folders(root):
        for path in sorted(folder.glob("*.h5")):
            report.append({"path": str(path), "state": "whole" if segments.is_whole(path) else "damaged"})
        report.append({"path": str(folder / RECORD), "state": _record_state(folder / RECORD)})
    if (root / unreadable.FILE).exists():
        report.append({"path": str(root / unreadable.FILE), "state": _record_state(root / unreadable.FILE)})
    for record in sorted((root / "checkpoints").glob("*/*.json")):
        report.append({"path": str(record), "state": _record_state(record)})
        report += _weights_state(record)
    return report


def remove(root: Path, identity: str) -> list[str]:
    """Delete the encoders whose identity or folder starts with `identity`, and the weights of those that were
    fine-tuned here -> the folders' names. Raises CacheError where there is none."""
    names = [f for f in _folders(root) if f.name.startswith(identity) or f.name.rsplit("-", 1)[-1].startswith(identity)]
    if not names or not identity:
        raise CacheError(f"No encoder {identity!r} in {root}: python cli.py cache list shows what is there.")
    records = [encoder_record(folder) or {} for folder in names]
    weights = [root / "checkpoints" / str(record["checkpoint"]) for record in records if "checkpoint" in record]
    gone = [*names, *(folder for folder in weights if folder.is_dir())]
    for folder in gone:
        shutil.rmtree(folder)
    return [folder.relative_to(root).as_posix() for folder in gone]


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if f.is_dir() and ((f / RECORD).exists() or any(f.glob("*.h5"))))


def _record_state(path: Path) -> str:
    try:
        read_record(path)
    except CacheError:
        return "damaged"
    return "whole"


def _weights_state(record: Path) -> list[dict[str, Any]]:
    """The state of the weights that a checkpoint's record vouches for; nothing where the record itself is damaged."""
    try:
        facts = read_record(record)
    except CacheError:
        return []
    finished = "weights_file_sha256" in facts
    weights = record.parent / "weights.safetensors" if finished else record.with_suffix(".safetensors")
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = ""
    expected = facts["weights_file_sha256"] if finished else facts.get("sha256")
    return [{"path": str(weights), "state": "whole" if digest == expected else "damaged"}]


def _mend(folder: Path, record: dict[str, Any]) -> None:
    try:
        write_record(folder / RECORD, record)
    except CacheError:
        return  # a read-only cache is still readable
