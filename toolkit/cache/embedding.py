"""Embed the images missing in a cache. Reading, model and writing run in parallel, so that the model never waits."""

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl
from filelock import FileLock

from toolkit.cache.reading import Ahead, Batch, Job, Skipped, device_of, read_ahead
from toolkit.cache.store import Cache, Together
from toolkit.data.manifest import Dataset, Progress
from toolkit.encoders.record import Encoder, LoadEncoder
from toolkit.errors import is_out_of_memory
from toolkit.storage import distributed
from toolkit.storage.work import Work, machine

ROWS_AT_ONCE = 65_536
PROMPTS_AT_ONCE = 256
FLUSH_SECONDS = 20.0

log = logging.getLogger(__name__)


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
            job = Job(dataset, cache, paths, skipped)
            _embed(job, missing, load_encoder(), on_progress)
            embedded += job.embedded
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


_Running = deque[tuple[Batch, "Future[tuple[list[str], np.ndarray | None]]"]]


def _embed(job: Job, missing: list[str], encoder: Encoder, on_progress: Progress | None) -> None:
    """Run the stages: threads read, the encoder's number of threads call the model, one thread writes."""
    writer = _Writer(job, _machine(encoder))
    running: _Running = deque()
    try:
        with read_ahead(job, missing, encoder) as ahead, closing(_in_order(encoder, ahead, running)) as done:
            for batch, keys, vectors in done:
                writer.add(keys, vectors, batch.claim, batch.last)
                if on_progress:
                    on_progress(job.done, len(missing))
    finally:
        try:
            for batch, result in running:  # after an interrupt these have finished
                if result.done() and result.exception() is None:
                    writer.add(*result.result(), batch.claim, batch.last)
                elif batch.last:
                    batch.claim.release()
        finally:
            writer.close()
    if on_progress:
        on_progress(len(missing), len(missing))


def _in_order(
    encoder: Encoder, ahead: Ahead, running: _Running
) -> "Generator[tuple[Batch, list[str], np.ndarray | None], None, None]":
    """Batches with their keys and vectors, in the order of the queue. `running` holds the batches in progress."""
    with getattr(encoder, "side_by_side", _one_at_a_time)() as (count, model):
        more = True
        try:
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
        finally:
            wait([result for _, result in running])


@contextmanager
def _one_at_a_time() -> Iterator[tuple[int, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(1) as model:
        yield 1, model


def _run(batch: Batch, encoder: Encoder) -> tuple[list[str], np.ndarray | None]:
    keys, pixels = batch.images.result()
    return keys, None if pixels is None else _embedded(encoder, pixels)


def _embedded(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """The vectors `[N, D]` of a batch; in two halves where a GPU has too little memory for all of it."""
    try:
        return encoder.embed_images(pixels)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(pixels) == 1:
            raise
    middle = len(pixels) // 2
    return np.concatenate([_embedded(encoder, part) for part in (pixels[:middle], pixels[middle:])])


class _Writer:
    """Stores vectors in a separate thread, by chunks, or every `FLUSH_SECONDS`, with the wall time since the last."""

    def __init__(self, job: Job, on: str):
        self.job, self.on = job, on
        self.keys: list[str] = []
        self.vectors: list[np.ndarray] = []
        self.flushed = time.monotonic()
        self.thread = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []

    def add(self, keys: list[str], vectors: np.ndarray | None, claim: FileLock, last: bool) -> None:
        """Add a batch; `last` marks the end of its chunk. Raises the exception of an earlier write."""
        self.keys += keys
        self.job.done += len(keys)
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
                self.job.cache.append_images(keys, np.concatenate(vectors), took)
                self.job.embedded += len(keys)
        finally:
            if claim is not None:
                claim.release()


def _machine(encoder: Encoder) -> str:
    return machine(device_of(encoder))
