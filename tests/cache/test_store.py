"""The cache keeps every vector under its content, notices damage, and never returns a wrong number."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import out_of_reach

from toolkit.cache import administration, segments
from toolkit.cache import store as caches
from toolkit.cache.store import Cache, Together
from toolkit.data import unreadable
from toolkit.encoders.record import TrainedOn
from toolkit.errors import CacheError, CannotRead, MissingEmbeddings
from toolkit.storage import kept
from toolkit.storage.records import write_record

DIMENSION = 16


def key(number: int) -> str:
    return f"{number:064x}"


def vectors(*numbers: int) -> np.ndarray:
    return np.array([[number + column / 100 for column in range(DIMENSION)] for number in numbers], dtype=np.float32)


def make(root: Path) -> Cache:
    return Cache(root, FakeEncoder(dimension=DIMENSION).record)


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True), max_size=6),
    asked=st.lists(st.integers(0, 40), max_size=20),
)
def test_it_behaves_like_a_dict_that_keeps_the_first_value(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], asked: list[int]
) -> None:
    root, model = tmp_path_factory.mktemp("cache"), {}
    for generation, batch in enumerate(batches):
        values = vectors(*batch) + 1000 * generation
        make(root).append_images([key(n) for n in batch], values)
        for number, value in zip(batch, values, strict=True):
            model.setdefault(number, value)
    cache = make(root)
    missing = [key(n) for n in dict.fromkeys(asked) if n not in model]
    assert cache.missing_images([key(n) for n in asked]) == missing
    present = [n for n in asked if n in model]
    expected = np.array([model[n] for n in present], dtype=np.float32).reshape(len(present), DIMENSION)
    assert np.array_equal(cache.read_images([key(n) for n in present]), expected)


def test_a_vector_that_is_not_there_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.append_images([key(1)], vectors(1))
    with pytest.raises(MissingEmbeddings, match=r"1 of 2 .* embed"):
        cache.read_images([key(1), key(2)])


def test_prompts_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.append_prompts(["a real image", "ein künstliches Bild"], vectors(1, 2))
    assert np.array_equal(make(tmp_path).read_prompts(["ein künstliches Bild", "a real image"]), vectors(2, 1))


def test_vectors_with_nan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="fp32"):
        make(tmp_path).append_images([key(1)], vectors(1) * np.nan)


def test_the_encoder_is_found_by_what_its_record_says(tmp_path: Path) -> None:
    make(tmp_path).append_images([key(1)], vectors(1))
    assert [one.model for one in caches.find_encoders(tmp_path, lambda one: one.precision == "fp32")] == ["fake"]
    assert caches.find_encoders(tmp_path, lambda one: one.precision == "bf16") == []


def test_a_lost_record_is_made_again_from_a_segment(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.append_images([key(1)], vectors(1))
    (cache.folder / "encoder.json").write_text("{")
    assert caches.find_encoders(tmp_path) == [cache.record]
    assert all(file["state"] == "whole" for file in administration.verify(tmp_path))


def damage(path: Path, rng: random.Random) -> str:
    """One of five kinds of damage; returns which."""
    kind = rng.choice(["flip", "truncate", "empty", "delete", "garbage"])
    data = bytearray(path.read_bytes())
    if kind == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        data = data[: rng.randrange(len(data))]
    elif kind == "empty":
        data = bytearray()
    elif kind == "garbage":
        data = bytearray(rng.randbytes(len(data)))
    path.unlink() if kind == "delete" else path.write_bytes(bytes(data))
    return kind


@pytest.mark.parametrize("seed", range(100))
def test_damage_is_noticed_named_and_repaired_by_storing_again(tmp_path: Path, seed: int) -> None:
    rng, cache = random.Random(seed), make(tmp_path)
    for first in (0, 10, 20):
        cache.append_images([key(n) for n in range(first, first + 10)], vectors(*range(first, first + 10)))
    hurt = rng.choice(sorted(p for p in cache.folder.iterdir() if p.is_file()))
    kind = damage(hurt, rng)

    records = caches.find_encoders(tmp_path)
    assert records == [cache.record]
    again = Cache(tmp_path, records[0])
    keys = [key(n) for n in range(30)]
    missing = again.missing_images(keys)
    if hurt.suffix == ".h5":
        assert len(missing) == 10
        assert [hurt.name in line for line in again.damaged] == ([] if kind == "delete" else [True])
        again.append_images(missing, vectors(*[int(k, 16) for k in missing]))
    assert np.array_equal(again.read_images(keys), vectors(*range(30)))
    assert all(file["state"] == "whole" for file in administration.verify(tmp_path))


def test_verify_names_the_damaged_file_and_changes_nothing(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.append_images([key(1)], vectors(1))
    segment = next(cache.folder.glob("*.h5"))
    segment.write_bytes(segment.read_bytes()[:-1])
    before = sorted(tmp_path.rglob("*"))
    assert [file["path"] for file in administration.verify(tmp_path) if file["state"] != "whole"] == [str(segment)]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_segment_that_cannot_be_read_now_is_not_set_aside(tmp_path: Path) -> None:
    make(tmp_path).append_images([key(1)], vectors(1))
    (segment,) = segments.list_segments(make(tmp_path).folder, "images")
    with out_of_reach(segment), pytest.raises(CannotRead, match=segment.name):
        make(tmp_path).missing_images([key(1)])
    again = make(tmp_path)
    assert np.array_equal(again.read_images([key(1)]), vectors(1)) and again.damaged == []


def test_an_encoders_record_that_cannot_be_read_now_is_not_set_aside(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.append_images([key(1)], vectors(1))
    with out_of_reach(cache.folder / "encoder.json"), pytest.raises(CannotRead, match=r"encoder\.json"):
        caches.find_encoders(tmp_path)
    assert caches.find_encoders(tmp_path) == [cache.record] and not list(tmp_path.rglob("*.damaged"))


def test_one_thread_may_ask_what_is_missing_while_another_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_whole = segments.is_whole

    def slowly(path: Path) -> bool:
        time.sleep(0.01)
        return is_whole(path)

    monkeypatch.setattr(segments, "is_whole", slowly)
    cache, numbers = make(tmp_path), range(20)

    def store() -> None:
        for n in numbers:
            Together(cache).append_images([key(n)], vectors(n))

    with ThreadPoolExecutor(1) as thread:
        storing = thread.submit(store)
        while not storing.done():
            cache.missing_images([key(n) for n in numbers])
        storing.result()
    assert np.array_equal(cache.read_images([key(n) for n in numbers]), vectors(*numbers))


def test_a_damaged_list_of_unreadable_images_is_named_set_aside_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable.add(tmp_path, {key(1): "truncated"})
    place = tmp_path / "unreadable.json"
    assert [file["state"] for file in administration.verify(tmp_path)] == ["whole"]
    place.write_bytes(place.read_bytes()[:-9])
    assert [file["state"] for file in administration.verify(tmp_path)] == ["damaged"]
    assert unreadable.read(tmp_path) == {}
    assert [str(place) in line for line in caplog.messages] == [True]
    assert not place.exists() and place.with_name("unreadable.json.damaged").exists()
    unreadable.add(tmp_path, {key(2): "empty file"})
    assert unreadable.read(tmp_path) == {key(2): "empty file"}


def test_an_unreadable_image_is_tried_again_where_other_libraries_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable.add(tmp_path, {key(1): "not a readable image (unknown format)"})
    here = unreadable.decoders()
    monkeypatch.setattr(unreadable, "decoders", lambda: f"{here}, one more")
    assert unreadable.read(tmp_path) == {}
    unreadable.add(tmp_path, {key(2): "empty file"})
    assert list(unreadable.read(tmp_path)) == [key(2)]
    monkeypatch.setattr(unreadable, "decoders", lambda: here)
    assert list(unreadable.read(tmp_path)) == [key(1)]


def test_an_image_that_did_not_fit_into_memory_is_tried_again_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable.add(tmp_path, {key(1): "does not fit into memory", key(2): "empty file"})
    assert set(unreadable.read(tmp_path)) == {key(1), key(2)}, "here it would not fit the next time either"
    monkeypatch.setattr(unreadable, "_memory", lambda: "512 GiB")
    assert unreadable.read(tmp_path) == {key(2): "empty file"}


def test_a_list_of_unreadable_images_of_an_earlier_version_is_passed_over(tmp_path: Path) -> None:
    write_record(tmp_path / "unreadable.json", {key(1): "truncated"})
    assert unreadable.read(tmp_path) == {}
    unreadable.add(tmp_path, {key(2): "empty file"})
    assert unreadable.read(tmp_path) == {key(2): "empty file"}
    assert [file["state"] for file in administration.verify(tmp_path)] == ["whole"]


def test_keys_that_start_alike_are_told_apart(tmp_path: Path) -> None:
    """The index keeps eight bytes of a key, which may coincide; the whole key decides."""
    alike = ["ab" * 8 + f"{n:048x}" for n in range(6)]
    for n in (0, 2, 4):
        make(tmp_path).append_images([alike[n]], vectors(n))
    cache = make(tmp_path)
    assert cache.missing_images(alike) == alike[1::2]
    assert np.array_equal(cache.read_images([alike[4], alike[0], alike[4]]), vectors(4, 0, 4))


def test_remove_deletes_the_weights_that_were_fine_tuned_here_too(tmp_path: Path) -> None:
    trained = TrainedOn("b" * 16, "abc", "study", {}, 0, "cat", ("dog",), "0" * 64, 24)
    cache = Cache(tmp_path, replace(FakeEncoder("f" * 16, DIMENSION).record, trained_on=trained))
    cache.append_images([key(1)], vectors(1))
    (tmp_path / "checkpoints/abc").mkdir(parents=True)
    assert administration.remove(tmp_path, "ffff") == [cache.folder.name, "checkpoints/abc"]
    assert list(tmp_path.rglob("*.*")) == []


def test_weights_stay_while_another_encoder_was_made_of_them(tmp_path: Path) -> None:
    trained = TrainedOn("b" * 16, "abc", "study", {}, 0, "cat", ("dog",), "0" * 64, 24)
    tuned = replace(FakeEncoder("f" * 16, DIMENSION).record, trained_on=trained)
    inside = replace(tuned, identity="e" * 16, sees="blocks", blocks=(DIMENSION,), base_identity=tuned.identity)
    for record in (tuned, inside):
        Cache(tmp_path, record).append_images([key(1)], vectors(1))
    (tmp_path / "checkpoints/abc").mkdir(parents=True)
    assert administration.remove(tmp_path, "eeee") == [Cache(tmp_path, inside).folder.name]
    assert administration.remove(tmp_path, "ffff") == [Cache(tmp_path, tuned).folder.name, "checkpoints/abc"]


@pytest.mark.parametrize("name", ["", "fake"])
def test_remove_takes_the_name_of_one_encoder(tmp_path: Path, name: str) -> None:
    for identity in ("1" * 16, "2" * 16):
        Cache(tmp_path, FakeEncoder(identity, DIMENSION).record).append_images([key(1)], vectors(1))
    with pytest.raises(CacheError, match="several encoders|No encoder"):
        administration.remove(tmp_path, name)
    assert len(administration.list_encoders(tmp_path)) == 2


def test_heads_that_were_kept_go_with_their_encoder(tmp_path: Path) -> None:
    Cache(tmp_path, FakeEncoder("1" * 16, DIMENSION).record).append_images([key(1)], vectors(1))
    for number, encoder in enumerate(("1" * 16, "2" * 16)):
        kept.write(tmp_path / kept.FITS / f"code/{number}.json", "", {"encoder": encoder}, {".bin": b"head"})
    assert administration.count_kept(tmp_path)["heads"] == 2
    administration.remove(tmp_path, "1111")
    assert administration.count_kept(tmp_path)["heads"] == 1
    assert {path.name for path in (tmp_path / kept.FITS / "code").iterdir()} == {"1.json", "1.bin"}


def test_partial_files_of_a_killed_process_are_removed_after_an_hour(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.folder.mkdir(parents=True)
    old, young = (cache.folder / f".images-{n}.h5.{n}.part" for n in (1, 2))
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.append_images([key(1)], vectors(1))
    assert not old.exists() and young.exists()


def test_list_counts_each_row_once_and_remove_deletes_the_encoder(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.append_images([key(1), key(2)], vectors(1, 2))
    cache.append_images([key(2), key(3)], vectors(2, 3))
    cache.append_prompts(["x"], vectors(9))
    (listed,) = administration.list_encoders(tmp_path)
    assert (listed["images"], listed["prompts"]) == (3, 1)
    assert administration.remove(tmp_path, "fake0000") == [cache.folder.name]
    assert administration.list_encoders(tmp_path) == []
    with pytest.raises(CacheError, match="cache list"):
        administration.remove(tmp_path, "fake0000")


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    import resource
    import signal

    cache = make(tmp_path)
    cache.append_images([key(1)], vectors(1))
    before = sorted(tmp_path.rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CacheError, match="What was stored before is kept"):
            cache.append_images([key(n) for n in range(2, 2000)], vectors(*range(2, 2000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(tmp_path.rglob("*")) == before
    assert np.array_equal(make(tmp_path).read_images([key(1)]), vectors(1))
