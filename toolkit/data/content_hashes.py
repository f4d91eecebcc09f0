"""The SHA-256 of images: each image is read once per command, and unreadable ones are remembered."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from toolkit.data import unreadable
from toolkit.data.manifest import Dataset, Progress, hash_rows

QUICKLY_READ = 5_000
"""Up to this many images are read without a progress bar."""
ROWS_AT_ONCE = 65_536
"""Rows are hashed in slices: hex strings take ten times the memory of the 32 bytes kept for each image."""


class Contents:
    """The SHA-256 of a data set's images, read when they are first asked for.

    Keeps 32 bytes for each image, in the order of the rows, and a reason for each unreadable one. `dataset` is the
    given data set with row numbers in an additional column, `row`.
    """

    def __init__(self, dataset: Dataset, cache: Path, on_progress: Progress | None = None):
        self.dataset = replace(dataset, rows=dataset.rows.with_row_index("row"))
        self.cache, self.on_progress = cache, on_progress
        self._keys = np.zeros(len(dataset.rows), "S32")
        self._read = np.zeros(len(dataset.rows), bool)
        self._bad = np.zeros(len(dataset.rows), bool)
        self._reasons: dict[int, str] = {}

    def hash_rows(self, dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` of `self.dataset` with their `sha256`; null where an image is unreadable, or was found to be
        earlier."""
        numbers = rows["row"].to_numpy()
        self._look_at(rows.filter(~self._read[numbers]))
        keys = pl.concat([self._hex(part) for part in _slices(numbers)] or [self._hex(numbers)])
        return rows.with_columns(pl.select(pl.when(pl.lit(pl.Series(~self._bad[numbers]))).then(keys)).to_series())

    def looked_at(self) -> int:
        """How many images were read, including those that turned out unreadable."""
        return int(self._read.sum())

    def readable(self) -> np.ndarray:
        """The row numbers of the readable images read so far; of images with equal bytes, the first."""
        numbers = np.flatnonzero(self._read & ~self._bad).astype(np.uint32)
        return numbers[np.sort(np.unique(self._keys[numbers], return_index=True)[1])]

    def slices(self, numbers: np.ndarray) -> Iterator[pl.DataFrame]:
        """The rows with these numbers (columns path, sha256), in slices."""
        for part in _slices(numbers):
            yield self.dataset.rows.select("path")[part].with_columns(self._hex(part))

    def note(self, skipped: pl.DataFrame) -> None:
        """Remember that images (columns path, sha256, reason) cannot be used. This holds for every image with the same
        bytes, or for the one file where `sha256` is null."""
        undecodable = dict(skipped.drop_nulls("sha256").select("sha256", "reason").iter_rows())
        unreadable.add(self.cache, undecodable)
        rows = np.flatnonzero(np.isin(self._keys, key_bytes(list(undecodable))))
        self._mark({row: undecodable[key] for row, key in zip(rows.tolist(), self._hex(rows), strict=True)})
        files = skipped.filter(pl.col("sha256").is_null()).select("path", "reason")
        self._mark(dict(self.dataset.rows.join(files, on="path").select("row", "reason").iter_rows()))

    def skipped(self) -> pl.DataFrame:
        """The unreadable images among those read so far: path, reason."""
        rows = sorted(self._reasons)
        reasons = pl.Series("reason", [self._reasons[row] for row in rows], dtype=pl.String)
        return self.dataset.rows.select("path")[rows].with_columns(reasons)

    def _look_at(self, rows: pl.DataFrame) -> None:
        bad, done = (unreadable.read(self.cache) if len(rows) else {}), 0
        for part in rows.sort("row").iter_slices(ROWS_AT_ONCE):
            watch = self._watch(done, len(rows)) if len(rows) > QUICKLY_READ else None
            hashed = hash_rows(self.dataset, part, watch)
            numbers, keys = part["row"].to_numpy(), hashed["sha256"]
            whole = keys.is_not_null().to_numpy()
            self._keys[numbers[whole]] = key_bytes(keys.drop_nulls().to_list())
            self._read[numbers] = True
            found = zip(numbers.tolist(), keys, hashed["reason"], strict=True)
            self._mark({row: bad.get(key, reason) for row, key, reason in found if key is None or key in bad})
            done += len(part)

    def _watch(self, before: int, total: int) -> Progress | None:
        report = self.on_progress
        return report and (lambda done, _: report(before + done, total))

    def _mark(self, reasons: dict[int, str]) -> None:
        self._reasons.update(reasons)
        self._bad[list(reasons)] = True

    def _hex(self, numbers: np.ndarray) -> pl.Series:
        text = self._keys[numbers].tobytes().hex()
        return pl.Series("sha256", [text[start : start + 64] for start in range(0, len(text), 64)], dtype=pl.String)


def key_bytes(keys: Sequence[str]) -> np.ndarray:
    """Hex keys -> `[N]` bytes of length 32."""
    return np.frombuffer(bytes.fromhex("".join(keys)), dtype="S32")


def _slices(numbers: np.ndarray) -> Iterator[np.ndarray]:
    return (numbers[start : start + ROWS_AT_ONCE] for start in range(0, len(numbers), ROWS_AT_ONCE))
