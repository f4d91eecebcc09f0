"""Embedding adds the missing images to a cache, whatever goes wrong meanwhile."""

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from fakes import FakeEncoder
from filelock import FileLock
from processes import clean_processes
from trees import cifake_files, jpeg, write_folder, write_zip

from toolkit.cache.embedding import embed_images, embed_prompts
from toolkit.cache.segments import list_segments, read_keys
from toolkit.cache.store import Cache
from toolkit.cli.main import cli
from toolkit.data.images import decode
from toolkit.data.labels import Labels
from toolkit.data.manifest import Dataset, hash_rows
from toolkit.data.sources import open_data
from toolkit.encoders.openclip import OpenClip, Source
from toolkit.errors import CacheError, DataError
from toolkit.pipeline import plan as plans
from toolkit.pipeline.embed import embed
from toolkit.pipeline.plan import Plan

KILLS = int(os.environ.get("TOOLKIT_TEST_KILLS", "30"))


def fill(dataset: Dataset, root: Path, encoder: FakeEncoder | None = None) -> tuple[int, int, pl.DataFrame]:
    encoder = encoder or FakeEncoder()
    report = embed_images(dataset, hash_rows(dataset, dataset.rows), lambda: encoder, Cache(root, encoder.record))
    return report.embedded, report.cached, report.skipped


def no_model() -> FakeEncoder:
    raise AssertionError("the model was loaded though nothing was missing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", cifake_files(3, 2))


def test_every_image_gets_the_vector_of_its_own_pixels(folder: Path, tmp_path: Path) -> None:
    dataset, encoder = open_data(folder), FakeEncoder()
    assert fill(dataset, tmp_path / "cache", encoder)[:2] == (40, 0)
    rows = hash_rows(dataset, dataset.rows)
    stored = Cache(tmp_path / "cache", encoder.record).read_images(rows["sha256"].to_list())
    pixels = [encoder.preprocess(decode(dataset.read(path))) for path in rows["path"]]
    np.testing.assert_allclose(stored, encoder.embed_images(np.stack(pixels)), rtol=1e-5, atol=1e-5)


def test_the_second_time_nothing_is_embedded_and_no_model_is_loaded(folder: Path, tmp_path: Path) -> None:
    dataset = open_data(folder)
    fill(dataset, tmp_path / "cache")
    cache = Cache(tmp_path / "cache", FakeEncoder().record)
    again = embed_images(dataset, hash_rows(dataset, dataset.rows), no_model, cache)
    assert (again.embedded, again.cached) == (0, 40)


def test_an_added_image_is_the_only_one_embedded_and_a_renamed_folder_embeds_nothing(
    folder: Path, tmp_path: Path
) -> None:
    fill(open_data(folder), tmp_path / "cache")
    (folder / "train/REAL/0777 (4).jpg").write_bytes(jpeg(777))
    assert fill(open_data(folder), tmp_path / "cache")[:2] == (1, 40)
    moved = folder.rename(tmp_path / "elsewhere")
    assert fill(open_data(moved), tmp_path / "cache")[:2] == (0, 41)
    zipped = write_zip(tmp_path / "same.zip", {str(p.relative_to(moved)): p.read_bytes() for p in moved.rglob("*.jpg")})
    assert fill(open_data(zipped), tmp_path / "cache")[:2] == (0, 41)


def test_a_changed_image_is_embedded_again(folder: Path, tmp_path: Path) -> None:
    fill(open_data(folder), tmp_path / "cache")
    (folder / "train/REAL/0000 (4).jpg").write_bytes(jpeg(4242))
    assert fill(open_data(folder), tmp_path / "cache")[:2] == (1, 39)


def test_equal_bytes_are_embedded_once(folder: Path, tmp_path: Path) -> None:
    (folder / "test/REAL/0009.jpg").write_bytes((folder / "train/REAL/0000.jpg").read_bytes())
    encoder = FakeEncoder()
    assert fill(open_data(folder), tmp_path / "cache", encoder)[0] == encoder.images_embedded == 40


def test_an_image_that_cannot_be_decoded_is_skipped_with_its_reason(folder: Path, tmp_path: Path) -> None:
    (folder / "train/REAL/0001.jpg").write_bytes(b"this is not a picture")
    embedded, _, skipped = fill(open_data(folder), tmp_path / "cache")
    assert embedded == 39
    assert skipped.select("path", "reason").rows() == [("train/REAL/0001.jpg", "not a readable image (unknown format)")]


def test_bytes_that_change_after_hashing_are_never_stored_under_the_old_key(folder: Path, tmp_path: Path) -> None:
    dataset, encoder = open_data(folder), FakeEncoder()
    rows = hash_rows(dataset, dataset.rows)
    (folder / "train/REAL/0001.jpg").write_bytes(jpeg(99999))
    report = embed_images(dataset, rows, lambda: encoder, Cache(tmp_path / "cache", encoder.record))
    assert report.skipped["reason"].to_list() == ["changed while the command ran"]
    assert report.skipped["sha256"].to_list() == [None]
    assert report.embedded == 39


def test_prompts_are_embedded_once(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    cache = Cache(tmp_path, encoder.record)
    assert embed_prompts(["a", "b", "a"], lambda: encoder, cache) == 2
    assert embed_prompts(["b", "a"], no_model, cache) == 0


class BreaksHalfWay(FakeEncoder):
    """An encoder that fails after three batches, or as many images as `after` says."""

    def __init__(self, error: BaseException, after: int = 24):
        super().__init__()
        self.error, self.after = error, after

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        if self.images_embedded >= self.after:
            raise self.error
        return super().embed_images(pixels)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_what_was_embedded_before_an_interruption_is_kept(folder: Path, tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fill(open_data(folder), tmp_path / "cache", BreaksHalfWay(error))
    assert fill(open_data(folder), tmp_path / "cache")[:2] == (16, 24)


@pytest.mark.parametrize("after", [0, 8, 24, 32])
def test_what_failed_can_be_embedded_again_at_once_by_the_same_process(
    folder: Path, tmp_path: Path, after: int
) -> None:
    with pytest.raises(RuntimeError) as kept:  # and with it all that its frames refer to
        fill(open_data(folder), tmp_path / "cache", BreaksHalfWay(RuntimeError("broken"), after))
    for claim in (tmp_path / "cache").rglob("*.lock"):
        FileLock(claim, timeout=0).acquire()  # raises where it is still held
    assert fill(open_data(folder), tmp_path / "cache")[:2] == (40 - after, after), kept


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


class LittleMemory(FakeEncoder):
    """An encoder on a GPU with memory for so many images."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > self.most:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 8.00 GiB.")
        return super().embed_images(pixels)


@pytest.mark.parametrize("most", [1, 3])
def test_a_batch_that_a_gpu_has_no_memory_for_is_embedded_in_parts(folder: Path, tmp_path: Path, most: int) -> None:
    dataset = open_data(folder)
    assert fill(dataset, tmp_path / "little", LittleMemory(most))[:2] == (40, 0)
    fill(dataset, tmp_path / "much")
    keys = hash_rows(dataset, dataset.rows)["sha256"].to_list()
    little, much = (Cache(tmp_path / name, FakeEncoder().record).read_images(keys) for name in ("little", "much"))
    np.testing.assert_allclose(little, much, rtol=1e-5, atol=1e-5)


def test_a_gpu_without_memory_for_one_image_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenClip, "embed_images", lambda _, pixels: LittleMemory(0).embed_images(pixels))
    words = ["embed", "--data", folder, "--model", "nano", "--cache", tmp_path / "cache", "--results", tmp_path]
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
    assert done.stderr.startswith("Error: The GPU has too little memory") and "--batch-size" in done.stderr


def test_a_cache_that_cannot_be_written_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(CacheError, match=r"^Cannot write [^\n]*cache[^\n]*$"):
        fill(open_data(folder), tmp_path / "cache")


def test_so_is_one_in_which_no_chunk_can_be_claimed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("toolkit.cache.reading.FileLock.acquire", refuse)
    with pytest.raises(CacheError, match=r"^Cannot write [^\n]*: Permission denied.$"):
        fill(open_data(folder), tmp_path / "cache")


class Slow(FakeEncoder):
    """An encoder that is slow, so that processes overlap, and records its work in a file."""

    def __init__(self, log: Path | None = None, seconds: float = 0.01):
        super().__init__()
        self.log, self.seconds = log, seconds

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        if self.log:
            with self.log.open("a") as file:
                file.write("x" * len(pixels))
        return super().embed_images(pixels)


def many(tmp_path: Path, count: int) -> Dataset:
    """A data set of distinct small images, held in memory."""
    files = {f"{number}.jpg": jpeg(number, size=8) for number in range(count)}
    rows = pl.DataFrame({"path": list(files), "label": "REAL", "category": "x", "split": "train"})
    return Dataset("many", "many", rows, files.__getitem__, "folder")


CHUNK = 64


def run_slowly(dataset: Dataset, rows: pl.DataFrame, root: Path, log: Path | None) -> None:
    import toolkit.cache.reading

    toolkit.cache.reading.CHUNK = CHUNK
    encoder = Slow(log)
    embed_images(dataset, rows, lambda: encoder, Cache(root, encoder.record))


def stored_keys(root: Path) -> list[bytes]:
    folder = Cache(root, FakeEncoder().record).folder
    return [key for path in list_segments(folder, "images") for key in read_keys(path).tolist()]


def test_four_processes_share_the_work(tmp_path: Path) -> None:
    dataset = many(tmp_path, 1000)
    rows = hash_rows(dataset, dataset.rows)
    context = clean_processes()
    logs = [tmp_path / f"log{n}" for n in range(4)]
    workers = [context.Process(target=run_slowly, args=(dataset, rows, tmp_path / "cache", log)) for log in logs]
    for worker in workers:
        worker.start()
    pixels = np.stack([FakeEncoder().preprocess(decode(dataset.read(path))) for path in rows["path"]])
    expected = dict(zip(rows["sha256"], FakeEncoder().embed_images(pixels), strict=True))
    while any(worker.is_alive() for worker in workers):  # a reader beside them sees whole rows alone
        reader = Cache(tmp_path / "cache", FakeEncoder().record)
        missing = set(reader.missing_images(list(expected)))
        there = [key for key in expected if key not in missing]
        theirs = [expected[key] for key in there] or np.empty((0, 16))
        np.testing.assert_allclose(reader.read_images(there), theirs, rtol=1e-5, atol=1e-5)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len(stored_keys(tmp_path / "cache")) == len(set(stored_keys(tmp_path / "cache"))) == 1000
    assert 1000 <= sum(log.stat().st_size for log in logs if log.exists()) <= 1100


def test_killed_at_random_moments_nothing_is_lost_doubled_or_wrong(tmp_path: Path) -> None:
    dataset = many(tmp_path, 3000)
    rows = hash_rows(dataset, dataset.rows)
    rng, context, root = random.Random(0), clean_processes(), tmp_path / "cache"
    kept: set[bytes] = set()
    log, stored, kills = tmp_path / "log", 0, 0
    while kills < KILLS:
        worker = context.Process(target=run_slowly, args=(dataset, rows, root, log))
        worker.start()
        time.sleep(rng.uniform(0.05, 0.8))
        if worker.is_alive():
            os.kill(worker.pid or 0, signal.SIGKILL)
            kills += 1
        worker.join()
        now = stored_keys(root)
        assert kept <= set(now), "a stored row was lost"
        assert len(now) == len(set(now)), "a row was stored twice"
        stored += len(now) - len(kept)
        kept = set(now)
        if len(kept) == 3000:
            root, kept = tmp_path / f"cache{kills}", set()
    in_vain = log.stat().st_size - stored
    assert in_vain <= kills * 2 * CHUNK, "each kill costs at most a segment that is written and one that is filled"
    run_slowly(dataset, rows, root, None)
    encoder = FakeEncoder()
    cache = Cache(root, encoder.record)
    keys = rows["sha256"].to_list()
    assert cache.missing_images(keys) == [] and cache.damaged == []
    pixels = np.stack([encoder.preprocess(decode(dataset.read(path))) for path in rows["path"]])
    np.testing.assert_allclose(cache.read_images(keys), encoder.embed_images(pixels), rtol=1e-5, atol=1e-5)
    assert keys[0] == hashlib.sha256(dataset.read(rows["path"][0])).hexdigest()


def test_images_that_may_not_be_read_are_skipped_with_the_reason(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = os.open

    def guarded(path: bytes, *rest: int) -> int:
        if path.endswith(b"train/REAL/0001.jpg"):
            raise PermissionError(13, "Permission denied")
        return really_open(path, *rest)

    monkeypatch.setattr(os, "open", guarded)
    dataset = open_data(folder)
    hashed = hash_rows(dataset, dataset.rows)
    assert hashed.drop_nulls("reason").select("path", "reason").rows() == [("train/REAL/0001.jpg", "permission denied")]


def test_a_read_only_cache_can_be_read_even_where_a_segment_is_damaged_and_says_that_it_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, encoder = open_data(folder), FakeEncoder()
    rows = hash_rows(dataset, dataset.rows)
    keys = rows["sha256"].to_list()
    root = tmp_path / "cache"
    for part in (rows.head(20), rows.tail(20)):
        embed_images(dataset, part, lambda: encoder, Cache(root, encoder.record))
    hurt = list_segments(Cache(root, encoder.record).folder, "images")[1]
    hurt.write_bytes(hurt.read_bytes()[:-5])

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    cache = Cache(root, encoder.record)
    assert cache.missing_images(keys) == keys[20:]
    assert len(cache.read_images(keys[:20])) == 20 and len(cache.damaged) == 1
    with pytest.raises(CacheError, match="Read-only file system"):
        embed_images(dataset, rows, lambda: encoder, cache)
    assert not list(root.rglob("*.part"))


class Vandal(FakeEncoder):
    """Removes the data's folder while its first batch is embedded."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        shutil.rmtree(self.folder, ignore_errors=True)
        return super().embed_images(pixels)


def test_a_data_folder_that_vanishes_while_it_is_embedded_is_one_line_and_what_was_stored_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "pictures", cifake_files(60, 30))
    plan = Plan(
        open_data(folder),
        Source("fake", "none"),
        Labels.of(["FAKE", "REAL"]),
        {"FAKE": ["a"], "REAL": ["b"]},
        ("none",),
        train_per_label=None,
        test_per_label=None,
        cache=tmp_path / "cache",
        results=tmp_path / "results",
    )
    monkeypatch.setattr(plans, "load", lambda _: Vandal(folder))
    with pytest.raises(DataError, match=r"could not be read .*What could be read is embedded"):
        embed(plan)
    write_folder(folder, cifake_files(60, 30))
    monkeypatch.setattr(plans, "load", lambda _: FakeEncoder())
    again = embed(plan)
    assert again.cached > 0 and again.embedded + again.cached == 720 and len(again.skipped) == 0
