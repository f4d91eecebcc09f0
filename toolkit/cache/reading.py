"""The first stage of embedding: claim chunks of images, read them, and join them to batches, ahead of the model.

The missing keys are split into chunks. A process claims a chunk with a file lock, so that several processes share the
work. The lock of a process that dies is released by the system.
"""

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from toolkit.cache.store import Cache, Together
from toolkit.data.manifest import Dataset
from toolkit.encoders.record import Encoder
from toolkit.errors import CacheError, ImageError

BATCHES_AHEAD = 4
CHUNK = 1024
CLAIMS = 64
IMAGES_PER_TASK = 16
SMALL_FILE = 16 << 10
"""Smaller files are decoded by one thread at a time. Their decoding is mostly Python, so that two threads only compete:
7,800 images of 32 x 32 a second, against 12,600 with one thread."""

Skipped = tuple[str, str | None, str]
"""Path, SHA-256 (None if the file could not be read) and reason."""


@dataclass
class Job:
    """State shared by the three stages: read, embed, write."""

    dataset: Dataset
    cache: Cache | Together
    paths: dict[str, str]
    skipped: list[Skipped]
    embedded: int = 0
    done: int = 0
    small_files: bool = True
    turn: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Batch:
    """Images for the model; `claim` is released when the last of them is stored."""

    images: "Future[tuple[list[str], np.ndarray | None]]"
    """Keys, and pixels `[N, 3, H, W]`; None if no image could be read."""
    claim: FileLock
    last: bool


Ahead = queue.Queue[Batch | BaseException | None]
"""Batches in order, then None; an exception in place of what could not be read."""


@contextmanager
def read_ahead(job: Job, missing: list[str], encoder: Encoder) -> Iterator[Ahead]:
    """The queue that threads fill inside the block: several read images, one joins them to batches."""
    ahead: Ahead = queue.Queue(BATCHES_AHEAD)
    threads, joiner = ThreadPoolExecutor(min(8, os.cpu_count() or 1)), ThreadPoolExecutor(1)

    def batch_of(keys: list[str]) -> "Future[tuple[list[str], np.ndarray | None]]":
        parts = [keys[start : start + IMAGES_PER_TASK] for start in range(0, len(keys), IMAGES_PER_TASK)]
        return joiner.submit(_joined, [threads.submit(_prepare, job, encoder, part) for part in parts])

    reader = threading.Thread(target=_fill, args=(job, missing, encoder.batch_size, batch_of, ahead), daemon=True)
    reader.start()
    try:
        yield ahead
    finally:
        job.stop.set()
        while reader.is_alive():  # it may be waiting for space in the queue
            _drain(ahead)
            reader.join(0.05)
        _drain(ahead)
        threads.shutdown(cancel_futures=True)
        joiner.shutdown(cancel_futures=True)


def _fill(job: Job, missing: list[str], size: int, batch_of: Callable[[list[str]], Any], ahead: Ahead) -> None:
    """Put the batches of all chunks that this process can claim into the queue."""
    try:
        for claim, keys in _claimed_chunks(job, missing):
            starts = range(0, len(keys), size)
            for start in starts:
                ahead.put(Batch(batch_of(keys[start : start + size]), claim, last=start == starts[-1]))
                if job.stop.is_set():
                    claim.release()
                    return
        ahead.put(None)
    except BaseException as error:  # raised in the model's thread
        ahead.put(error)


def _claimed_chunks(job: Job, missing: list[str]) -> Iterator[tuple[FileLock, list[str]]]:
    """Claimed chunks of the missing keys; chunks held by another process come last."""
    folder = job.cache.folder / ".claims"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"Cannot write the cache {folder.parent}: {error.strerror}.") from error
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    while chunks and not job.stop.is_set():
        held = []
        for chunk in chunks:
            if job.stop.is_set():
                return
            number = int(hashlib.sha256("".join(chunk).encode()).hexdigest(), 16) % CLAIMS
            claim = FileLock(folder / f"{number}.lock", thread_local=False, is_singleton=False)
            try:
                claim.acquire(timeout=0)
            except Timeout:
                held.append(chunk)
                continue
            except OSError as error:
                raise CacheError(f"Cannot write the cache {folder.parent}: {error.strerror}.") from error
            keys = job.cache.missing_images(chunk)
            job.done += len(chunk) - len(keys)
            if keys:
                yield claim, keys
            else:
                claim.release()
        if len(held) == len(chunks):
            time.sleep(0.1)
        chunks = held


def _prepare(job: Job, encoder: Encoder, keys: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Read, check and decode a few images; failures are recorded and left out."""
    with job.turn if job.small_files and shares_cores(encoder) else nullcontext():
        return [(key, pixels) for key in keys if (pixels := _prepare_one(job, encoder, key)) is not None]


def shares_cores(encoder: Encoder) -> bool:
    """Whether the model computes on the cores that read. Small images are then read by one thread at a time, since more
    would only take turns with the model's; a GPU waits for every core's reading."""
    return device_of(encoder) == "cpu"


def _prepare_one(job: Job, encoder: Encoder, key: str) -> np.ndarray | None:
    if job.stop.is_set():
        return None
    path, content = job.paths[key], None
    try:
        data = job.dataset.read_hashed(path, key)
        job.small_files = len(data) < SMALL_FILE
        content = key
        return encoder.prepare(data)
    except ImageError as error:
        job.skipped.append((path, content, str(error)))
        return None


def _joined(tasks: list["Future[list[tuple[str, np.ndarray]]]"]) -> tuple[list[str], np.ndarray | None]:
    """One array of a batch's images. It is made beside the model's thread, so that a GPU need not wait for it."""
    pairs = [pair for task in tasks for pair in task.result()]
    return [key for key, _ in pairs], np.stack([pixels for _, pixels in pairs]) if pairs else None


def _drain(ahead: Ahead) -> None:
    """Empty the queue, and give back the claims of what was in it."""
    try:
        while True:
            batch = ahead.get_nowait()
            if isinstance(batch, Batch) and batch.last:
                batch.claim.release()
    except queue.Empty:
        return


def device_of(encoder: Encoder) -> str:
    """Where the encoder computes."""
    return getattr(encoder, "device", "cpu")
