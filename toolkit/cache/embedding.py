"""Embed the images missing in a cache. Reading, the model and writing run in parallel, so that the model never waits.

The missing keys are split into chunks. A process claims a chunk with a file lock, so that several processes share the
work. The lock of a process that dies is released by the system.
"""

import hashlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from toolkit.cache.store import Cache, Together
from toolkit.data.manifest import Dataset
from toolkit.encoders.record import Encoder, LoadEncoder
from toolkit.errors import CacheError, ImageError
from toolkit.storage import distributed
from toolkit.storage.work import Work, machine

CHUNK = 1024
ROWS_AT_ONCE = 65_536
PROMPTS_AT_ONCE = 256
CLAIMS = 64
FLUSH_SECONDS = 20.0
BATCHES_AHEAD = 4
IMAGES_PER_TASK = 16
SMALL_FILE = 16 << 10
"""Smaller files are decoded by one thread at a time. Their decoding is mostly Python, so that two threads only compete:
7,800 images of 32 x 32 a second, against 12,600 with one thread."""

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Skipped = tuple[str, str | None, str]


@dataclass(frozen=True)
class EmbedReport:
    """The numbers of distinct images embedded now and earlier. `skipped` has the columns path, sha256 (null if the file
    could not be read) and reason."""

    embedded: int
    cached: int
    skipped: pl.DataFrame


def embed_prompts(prompts: Sequence[str], load_encoder: LoadEncoder, cache: Cache) -> int:
    """Embed the prompts missing in `cache`; returns their number. Of several processes, the first does it."""
    missing = cache.missing_prompts(prompts) if distributed.rank() == 0 else []
    if missing:
        encoder = load_encoder()
        for start in range(0, len(missing), PROMPTS_AT_ONCE):
            some, began = missing[start : start + PROMPTS_AT_ONCE], time.perf_counter()
            vectors = encoder.embed_prompts(some)
            cache.append_prompts(some, vectors, Work(time.perf_counter() - began, _machine(encoder)))
    distributed.barrier()
    return len(missing)


def embed_images(
    dataset: Dataset,
    rows: pl.DataFrame,
    load_encoder: LoadEncoder,
    cache: Cache | Together,
    on_progress: Progress | None = None,
) -> EmbedReport:
    """Embed the images of `rows` (columns path, sha256) that are missing in `cache`; `load_encoder` is called only if
    any are.

    Images that cannot be decoded, or that changed since they were hashed, are skipped and reported. Finished vectors
    are stored even after an exception or KeyboardInterrupt. Processes under torchrun share the work evenly, wait for
    each other at the end, and report the work of all.
    """
    rows = rows.select("sha256", "path").unique("sha256", keep="first", maintain_order=True)
    skipped: list[Skipped] = []
    embedded = 0
    for part in _share(rows, cache).iter_slices(ROWS_AT_ONCE):  # as Python strings they take ten times the memory
        paths = dict(part.iter_rows())
        missing = cache.missing_images(list(paths))
        log.info("%s: %d images in the cache, %d to embed", cache.folder, len(part) - len(missing), len(missing))
        if missing:
            work = _Work(dataset, cache, paths, skipped)
            _embed(work, missing, load_encoder(), on_progress)
            embedded += work.embedded
    embedded, skipped = _of_all(embedded, skipped)
    frame = pl.DataFrame(skipped, schema={name: pl.String for name in ("path", "sha256", "reason")}, orient="row")
    return EmbedReport(embedded, len(rows) - embedded - len(skipped), frame)


def _share(rows: pl.DataFrame, cache: Cache | Together) -> pl.DataFrame:
    """This process's part of the missing rows; all of `rows` for a single process. Every process lists the missing rows
    before any of them writes, so that all divide the same list.
    """
    if distributed.world() == 1:
        return rows
    parts = [part["sha256"].to_list() for part in rows.iter_slices(ROWS_AT_ONCE)]
    missing = pl.Series([key for part in parts for key in cache.missing_images(part)], dtype=pl.String)
    distributed.barrier()
    return distributed.share(rows.filter(pl.col("sha256").is_in(missing.implode())))


def _of_all(embedded: int, skipped: list[Skipped]) -> tuple[int, list[Skipped]]:
    """The sum of all processes' reports."""
    done = distributed.everyones((embedded, skipped))
    return sum(count for count, _ in done), [one for _, some in done for one in some]


@dataclass
class _Work:
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
class _Batch:
    """Images for the model; `claim` is released when the last of them is stored."""

    images: list["Future[list[tuple[str, np.ndarray]]]"]
    claim: FileLock
    last: bool


_Running = deque[tuple[_Batch, "Future[tuple[list[str], np.ndarray | None]]"]]


def _embed(work: _Work, missing: list[str], encoder: Encoder, on_progress: Progress | None) -> None:
    """Run the stages: one thread reads, the encoder's number of threads call the model, one thread writes."""
    ahead: queue.Queue[_Batch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    reader = threading.Thread(target=_read_ahead, args=(work, missing, encoder, threads, ahead), daemon=True)
    writer = _Writer(work, _machine(encoder))
    reader.start()
    running: _Running = deque()
    try:
        with closing(_in_order(encoder, ahead, running)) as done:
            for batch, keys, vectors in done:
                writer.add(keys, vectors, batch.claim, batch.last)
                if on_progress:
                    on_progress(work.done, len(missing))
    finally:
        work.stop.set()
        while reader.is_alive():  # it may be waiting for space in the queue
            _drain(ahead)
            reader.join(0.05)
        threads.shutdown(cancel_futures=True)
        for batch, result in running:  # after an interrupt these have finished
            if result.done() and result.exception() is None:
                writer.add(*result.result(), batch.claim, batch.last)
        writer.close()
    if on_progress:
        on_progress(len(missing), len(missing))


def _in_order(
    encoder: Encoder, ahead: "queue.Queue[_Batch | BaseException | None]", running: _Running
) -> "Generator[tuple[_Batch, list[str], np.ndarray | None], None, None]":
    """Batches with their keys and vectors, in the order of the queue. `running` holds the batches in progress."""
    with getattr(encoder, "side_by_side", _one_at_a_time)() as (count, model):
        more = True
        while more or running:
            # The reader may be waiting for a claim held by a running batch: do not wait for the reader then.
            if running and (len(running) > count or not more or ahead.empty()):
                batch, result = running[0]
                keys, vectors = result.result()
                running.popleft()
                yield batch, keys, vectors
                continue
            new = ahead.get()
            if isinstance(new, BaseException):
                raise new
            if new is None:
                more = False
            else:
                running.append((new, model.submit(_run, new, encoder)))


@contextmanager
def _one_at_a_time() -> Iterator[tuple[int, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(1) as model:
        yield 1, model


def _run(batch: _Batch, encoder: Encoder) -> tuple[list[str], np.ndarray | None]:
    pairs = [pair for task in batch.images for pair in task.result()]
    if not pairs:
        return [], None
    return [key for key, _ in pairs], encoder.embed_images(np.stack([pixels for _, pixels in pairs]))


def _drain(ahead: "queue.Queue[_Batch | BaseException | None]") -> None:
    try:
        while True:
            batch = ahead.get_nowait()
            if isinstance(batch, _Batch) and batch.last:
                batch.claim.release()
    except queue.Empty:
        return


def _read_ahead(
    work: _Work,
    missing: list[str],
    encoder: Encoder,
    threads: ThreadPoolExecutor,
    ahead: "queue.Queue[_Batch | BaseException | None]",
) -> None:
    try:
        for claim, keys in _claimed_chunks(work, missing):
            starts = range(0, len(keys), encoder.batch_size)
            for start in starts:
                batch = keys[start : start + encoder.batch_size]
                tasks = [
                    threads.submit(_prepare, work, encoder, batch[i : i + IMAGES_PER_TASK])
                    for i in range(0, len(batch), IMAGES_PER_TASK)
                ]
                ahead.put(_Batch(tasks, claim, last=start == starts[-1]))
                if work.stop.is_set():
                    claim.release()
                    return
        ahead.put(None)
    except BaseException as error:  # raised in the model's thread
        ahead.put(error)


def _claimed_chunks(work: _Work, missing: list[str]) -> Iterator[tuple[FileLock, list[str]]]:
    """Claimed chunks of the missing keys; chunks held by another process come last."""
    folder = work.cache.folder / ".claims"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"Cannot write the cache {folder.parent}: {error.strerror}.") from error
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    while chunks and not work.stop.is_set():
        held = []
        for chunk in chunks:
            if work.stop.is_set():
                return
            number = int(hashlib.sha256("".join(chunk).encode()).hexdigest(), 16) % CLAIMS
            claim = FileLock(folder / f"{number}.lock", thread_local=False, is_singleton=False)
            try:
                claim.acquire(timeout=0)
            except Timeout:
                held.append(chunk)
                continue
            keys = work.cache.missing_images(chunk)
            work.done += len(chunk) - len(keys)
            if keys:
                yield claim, keys
            else:
                claim.release()
        if len(held) == len(chunks):
            time.sleep(0.1)
        chunks = held


def _prepare(work: _Work, encoder: Encoder, keys: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Read, check and decode a few images; failures are recorded and left out."""
    with work.turn if work.small_files and shares_cores(encoder) else nullcontext():
        return [(key, pixels) for key in keys if (pixels := _prepare_one(work, encoder, key)) is not None]


def shares_cores(encoder: Encoder) -> bool:
    """Whether the model computes on the cores that read. Small images are then read by one thread at a time, since more
    would only take turns with the model's; a GPU waits for every core's reading."""
    return _device(encoder) == "cpu"


def _prepare_one(work: _Work, encoder: Encoder, key: str) -> np.ndarray | None:
    if work.stop.is_set():
        return None
    path, content = work.paths[key], None
    try:
        data = work.dataset.read(path)
        work.small_files = len(data) < SMALL_FILE
        if hashlib.sha256(data).hexdigest() != key:
            raise ImageError("changed while it was being embedded")
        content = key
        return encoder.prepare(data)
    except ImageError as error:
        work.skipped.append((path, content, str(error)))
        return None


class _Writer:
    """Stores vectors in a separate thread, by chunks, or every `FLUSH_SECONDS`, with the wall time since the last."""

    def __init__(self, work: _Work, on: str):
        self.work, self.on = work, on
        self.keys: list[str] = []
        self.vectors: list[np.ndarray] = []
        self.flushed = time.monotonic()
        self.thread = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []

    def add(self, keys: list[str], vectors: np.ndarray | None, claim: FileLock, last: bool) -> None:
        """Add a batch; `last` marks the end of its chunk. Raises the exception of an earlier write."""
        self.keys += keys
        self.work.done += len(keys)
        if vectors is not None:
            self.vectors.append(vectors)
        if last or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._flush(claim if last else None)
        for write in [write for write in self.pending if write.done()]:
            self.pending.remove(write)
            write.result()

    def close(self) -> None:
        """Store the rest. Raises the exception of a write."""
        self._flush(None)
        self.thread.shutdown()
        for write in self.pending:
            write.result()

    def _flush(self, claim: FileLock | None) -> None:
        keys, vectors, began = self.keys, self.vectors, self.flushed
        self.keys, self.vectors, self.flushed = [], [], time.monotonic()
        took = Work(self.flushed - began, self.on)
        self.pending.append(self.thread.submit(self._store, keys, vectors, took, claim))

    def _store(self, keys: list[str], vectors: list[np.ndarray], took: Work, claim: FileLock | None) -> None:
        try:
            if keys:
                self.work.cache.append_images(keys, np.concatenate(vectors), took)
                self.work.embedded += len(keys)
        finally:
            if claim is not None:
                claim.release()


def _machine(encoder: Encoder) -> str:
    return machine(_device(encoder))


def _device(encoder: Encoder) -> str:
    return getattr(encoder, "device", "cpu")


def describe(report: EmbedReport) -> dict[str, Any]:
    """The report."""
    return {"embedded": report.embedded, "cached": report.cached, "skipped": len(report.skipped)}
