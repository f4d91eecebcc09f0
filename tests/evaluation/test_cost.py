"""Cost is measured when work is done, kept beside it, and known to every later comparison from the cache."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fakes import FakeEncoder
from trees import cifake_files, write_folder

from toolkit.cache.embedding import embed_images, embed_prompts
from toolkit.cache.store import Cache, Together
from toolkit.data.labels import Labels
from toolkit.data.manifest import Dataset
from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.evaluation import columns
from toolkit.evaluation.grid import Settings
from toolkit.pipeline.compare import compare_split
from toolkit.storage.work import Work, machine

SETTINGS = Settings("made", Labels.of(["FAKE", "REAL"]), {"FAKE": ["fake"], "REAL": ["real"]}, ("zero-shot", "logreg"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(write_folder(tmp_path_factory.mktemp("data") / "cifake", cifake_files(8, 6)))


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return select(dataset, "cat", 12, 5)


def embedded(dataset: Dataset, split: Split, root: Path) -> Cache:
    encoder = FakeEncoder()
    cache = Cache(root, encoder.record)
    embed_images(dataset, split.rows(), lambda: encoder, cache)
    embed_prompts(["fake", "real"], lambda: encoder, cache)
    return cache


def by_hand(root: Path, split: Split, work: Callable[[int], Work | None]) -> Cache:
    """Vectors as some other version or machine stored them: a segment of two images after another."""
    cache, keys = Cache(root, FakeEncoder().record), split.rows()["sha256"].unique().sort().to_list()
    rng = np.random.default_rng(0)
    for number, start in enumerate(range(0, len(keys), 2)):
        some = keys[start : start + 2]
        cache.append_images(some, rng.standard_normal((len(some), 16)).astype(np.float32), work(number))
    cache.append_prompts(["fake", "real"], rng.standard_normal((2, 16)).astype(np.float32), work(0))
    return cache


def rows(split: Split, cache: Cache) -> dict[str, dict[str, Any]]:
    """The rows on novel by their head."""
    table = compare_split(split, [cache], SETTINGS).table
    return {row["head"]: row for row in table.iter_rows(named=True) if (row["class"], row["test"]) == ("all", "novel")}


def mean_seconds(cache: Cache, kind: str) -> float:
    """Read from the files with h5py alone."""
    seconds, count = 0.0, 0
    for path in cache.folder.glob(f"{kind}-*.h5"):
        with h5py.File(path) as file:
            seconds, count = seconds + json.loads(file.attrs["work"])["seconds"], count + len(file["embedding"])
    return seconds / count


def test_a_row_has_the_embedding_of_what_it_needs_and_no_later_run_changes_it(
    dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    cache = embedded(dataset, split, tmp_path)
    first, again = rows(split, cache), rows(split, Cache(tmp_path, cache.record))
    image, prompt = mean_seconds(cache, "images"), mean_seconds(cache, "texts")
    assert image > 0 and first["zero-shot"]["embedding_seconds"] == pytest.approx(2 * prompt)
    assert first["logreg"]["embedding_seconds"] == pytest.approx(24 * image)
    for name, row in first.items():
        assert row["embedding_seconds"] == again[name]["embedding_seconds"]
        assert row["fitting_seconds"] > 0 and row["answer_ms"] > 1000 * image
        assert row["training_seconds"] == 0 and row["bytes_checkpoint"] == 0
        assert row["measured_on"] == f"{machine()} (fp32)"


def test_bytes_parameters_and_labels_are_counted(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    found = rows(split, embedded(dataset, split, tmp_path))
    counted = ["parameters_trained", "images_labelled", "bytes_an_image", "bytes_embedded"]
    assert [found["zero-shot"][name] for name in counted] == [0, 0, 64, 64 * 10]
    assert [found["logreg"][name] for name in counted] == [17, 24, 64, 64 * (24 + 10)]


def test_what_was_not_measured_is_empty_and_never_zero(split: Split, tmp_path: Path) -> None:
    for row in rows(split, by_hand(tmp_path, split, lambda number: None)).values():
        assert row["embedding_seconds"] is None and row["answer_ms"] is None
        assert row["fitting_seconds"] > 0 and row["bytes_an_image"] == 64


def test_segments_without_a_record_cost_what_the_others_do(split: Split, tmp_path: Path) -> None:
    cache = by_hand(tmp_path, split, lambda number: None if number % 2 else Work(0.5, "a"))
    assert rows(split, cache)["logreg"]["embedding_seconds"] == pytest.approx(24 * 0.25)


def test_several_machines_are_named_and_their_mean_counts_images(split: Split, tmp_path: Path) -> None:
    cache = by_hand(tmp_path, split, lambda number: Work(2.0, "slow") if number % 2 else Work(1.0, "fast"))
    images = len(split.rows()["sha256"].unique())
    slow = images // 4 * 2
    found = rows(split, cache)["logreg"]
    assert found["embedding_seconds"] == pytest.approx(24 * (slow * 1.0 + (images - slow) * 0.5) / images)
    assert found["measured_on"] == f"fast + slow + {machine()} (fp32)"


def test_one_pass_for_two_encoders_counts_for_each(tmp_path: Path) -> None:
    first, second = (Cache(tmp_path, FakeEncoder(name * 16, size).record) for name, size in (("a", 4), ("b", 6)))
    keys = [f"{number:064x}" for number in range(4)]
    first.append_images(keys[:2], np.ones((2, 4), np.float32), Work(1.0, "m"))
    Together(first, second).append_images(keys, np.ones((4, 10), np.float32), Work(8.0, "m"))
    assert second.measured().seconds == pytest.approx(2.0)
    assert first.measured().seconds == pytest.approx((1.0 + 4.0) / 4), "two of the four were there, and cost nothing"


def test_seconds_are_no_metric_that_predictions_must_give_again() -> None:
    assert set(columns.PREPARING) < set(columns.TIMES) < set(columns.RESULTS)
