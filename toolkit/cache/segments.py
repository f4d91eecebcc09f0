"""A segment: an HDF5 file of vectors, written atomically and never changed.

Its name contains the SHA-256 of its bytes. This is checked before HDF5 parses the file, so that a damaged file never
gives wrong numbers.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.storage.damage import file_sha256
from toolkit.storage.records import write_whole
from toolkit.storage.work import Work

ROWS_AT_ONCE = 65_536
NAME_DIGITS = 32


def write_segment(
    folder: Path,
    kind: str,
    keys: Mapping[str, Any],
    vectors: np.ndarray,
    about: Mapping[str, Any],
    work: Work | None = None,
) -> Path:
    """Write `vectors` `[N, D]` in their own type with their `keys` (one data set, N long) as
    `<kind>-<time>-<digest>.h5`.

    `work` is what making them took, if it was measured.
    Raises CacheError if it cannot be written; no partial file is left.
    """
    data = _hdf5_image({**keys, "embedding": np.ascontiguousarray(vectors)}, about, work)
    digest = hashlib.sha256(data).hexdigest()[:NAME_DIGITS]
    place = folder / f"{kind}-{time.time_ns():020d}-{digest}.h5"
    write_whole(place, data)
    return place


def _hdf5_image(data_sets: Mapping[str, Any], about: Mapping[str, Any], work: Work | None) -> bytes:
    """The bytes of an HDF5 file, made in memory: on a full disk HDF5 crashes the process instead of failing."""
    import h5py

    with h5py.File("segment.h5", "w", driver="core", backing_store=False, libver="latest") as file:
        for name, values in data_sets.items():
            file.create_dataset(name, data=values)
        file.attrs["about"] = json.dumps(dict(about))
        file.attrs.update({"projected": True, "normalised": False, "dtype": str(data_sets["embedding"].dtype)})
        if work:
            file.attrs["work"] = json.dumps(asdict(work))
        file.flush()
        return bytes(file.id.get_file_image())


def list_segments(folder: Path, kind: str) -> list[Path]:
    """The segments of one kind, oldest first."""
    return sorted(folder.glob(f"{kind}-*.h5"))


def is_whole(path: Path) -> bool:
    """Whether the file's bytes match the hash in its name."""
    return (file_sha256(path) or "")[:NAME_DIGITS] == path.stem.rsplit("-", 1)[-1]


def read_keys(path: Path) -> np.ndarray:
    """The image keys of an undamaged segment: `[N]` bytes of length 32."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return np.ascontiguousarray(file["sha256"][:]).view("S32").reshape(-1)


def read_prompts(path: Path) -> list[str]:
    """The prompts of an undamaged segment."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return [prompt.decode() for prompt in file["prompt"][:]]


def read_vectors(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors of an undamaged segment in slices: (first row, `[n, D]` as stored)."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        vectors = file["embedding"]
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            yield start, vectors[start : start + ROWS_AT_ONCE]


def read_about(path: Path) -> dict[str, Any]:
    """The encoder's record in an undamaged segment."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return dict(json.loads(file.attrs["about"]))


def read_work(path: Path) -> tuple[int, int, Work | None]:
    """Of an undamaged segment: its number of vectors, the bytes of each, and what making them all took. None if that
    was not measured, as in segments of earlier versions."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        vectors, work = file["embedding"], file.attrs.get("work")
        return len(vectors), vectors.dtype.itemsize * vectors.shape[1], Work(**json.loads(work)) if work else None
