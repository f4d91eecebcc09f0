"""Training and test rows, for any data."""

import hashlib
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data.held_out import held_out_values, what_is_held_out
from toolkit.data.manifest import Dataset
from toolkit.data.sources import open_data
from toolkit.data.split import NOTHING, first_fresh, select, with_fewer
from toolkit.errors import ImageError, SelectionError

CATEGORIES = ["bird", "cat", "dog"]


def dataset(contents: list[tuple[str, str | None, str, int]]) -> Dataset:
    """(label, category, split, content) rows; rows with equal content numbers have equal bytes."""
    files = {f"{i}.png": bytes([content]) for i, (_, _, _, content) in enumerate(contents)}
    rows = pl.DataFrame(
        [(f"{i}.png", label, category, split) for i, (label, category, split, _) in enumerate(contents)],
        schema=dict.fromkeys(["path", "label", "category", "split"], pl.String),
        orient="row",
    )
    return Dataset("made", "made", rows, files.__getitem__, "folder")


ROWS = st.tuples(
    st.sampled_from(["FAKE", "REAL"]),
    st.sampled_from([*CATEGORIES, None]),
    st.sampled_from(["train", "test"]),
    st.integers(0, 99),
)
ENOUGH = [
    (label, category, split, 100 + i)
    for i, (label, category, split) in enumerate(
        (label, category, split)
        for label in ("FAKE", "REAL")
        for category in CATEGORIES
        for split in ("train", "test", "train", "test")
    )
]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(ROWS, max_size=60),
    held_out=st.sampled_from(CATEGORIES),
    train=st.one_of(st.none(), st.integers(2, 12)),
    test=st.one_of(st.none(), st.integers(1, 8)),
    keep_leaks=st.booleans(),
    seed=st.integers(0, 3),
)
def test_the_held_out_category_never_trains_and_no_training_image_tests(
    rows: list[tuple[str, str | None, str, int]],
    held_out: str,
    train: int | None,
    test: int | None,
    keep_leaks: bool,
    seed: int,
) -> None:
    data = dataset(rows + ENOUGH)
    made = select(data, held_out, train, test, keep_leaks, seed)
    known_others = set(CATEGORIES) - {held_out}
    assert set(made.train["category"]) <= known_others and set(made.base["category"]) <= known_others
    assert set(made.novel["category"]) == {held_out}
    assert set(made.train["split"]) == {"train"} and set(made.base["split"]) == set(made.novel["split"]) == {"test"}
    if not keep_leaks:
        assert set(made.train["sha256"]).isdisjoint([*made.base["sha256"], *made.novel["sha256"]])
    else:
        assert made.leaks == 0
    for chosen, count in ((made.train, train), (made.base, test), (made.novel, test)):
        for label in ("FAKE", "REAL"):
            assert count is None or (chosen["label"] == label).sum() <= count


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(ROWS, max_size=60), count=st.integers(2, 6))
def test_it_takes_the_first_n_of_each_label_in_the_datas_order(
    rows: list[tuple[str, str | None, str, int]], count: int
) -> None:
    data = dataset(rows + ENOUGH)
    made = select(data, "cat", count, 3)
    for label in ("FAKE", "REAL"):
        expected = [
            path
            for path, its, category, split in data.rows.iter_rows()
            if (its, split) == (label, "train") and category not in ("cat", None)
        ][:count]
        assert made.train.filter(pl.col("label") == label)["path"].to_list() == expected


def test_leaks_are_passed_over_before_the_first_n_are_taken_so_supports_stay_whole() -> None:
    rows = [("FAKE", "dog", "train", i) for i in range(3)] + [("REAL", "dog", "train", 10 + i) for i in range(3)]
    rows += [("FAKE", "dog", "test", i) for i in (1, 50, 2, 51, 52)]
    rows += [("REAL", "dog", "test", 60 + i) for i in range(3)]
    rows += [(label, "cat", "test", 80 + i) for i, label in enumerate(["FAKE", "REAL"])]
    made = select(dataset(rows), "cat", 3, 2)
    assert made.leaks == 2
    assert made.base["path"].to_list() == ["7.png", "9.png", "11.png", "12.png"]
    kept = select(dataset(rows), "cat", 3, 2, keep_leaks=True)
    assert kept.leaks == 0 and kept.base["path"].to_list()[:2] == ["6.png", "7.png"]


def test_only_the_rows_that_are_needed_are_read() -> None:
    read: list[str] = []
    data = dataset([*ENOUGH, *[("REAL", "dog", "train", i) for i in range(50)]])

    def note(of: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
        read.extend(rows["path"])
        keys = [hashlib.sha256(of.read(path)).hexdigest() for path in rows["path"]]
        return rows.with_columns(pl.Series("sha256", keys, dtype=pl.String))

    select(data, "cat", 2, 1, hash_rows=note)
    assert len(read) == 2 * (2 + 1 + 1)


def test_another_seed_draws_other_training_rows_and_the_same_test_rows() -> None:
    data = dataset([*ENOUGH, *[("REAL", "dog", "train", i) for i in range(50)]])
    first, drawn, again = (select(data, "cat", 2, 1, seed=seed) for seed in (0, 7, 7))
    assert drawn.train.equals(again.train) and not drawn.train.equals(first.train)
    assert drawn.base.equals(first.base) and drawn.novel.equals(first.novel)


def test_split_takes_known_categories_and_an_error_lists_them() -> None:
    data = dataset(ENOUGH)
    assert held_out_values(data, []) == ["none"], "nobody asked for cats"
    assert held_out_values(replace(data, kind="cifake"), []) == ["cat"], "the study's own"
    assert held_out_values(data, ["dog,bird", "dog"]) == ["dog", "bird"]
    assert held_out_values(data, ["all"]) == CATEGORIES
    assert held_out_values(data, ["none"]) == ["none"]
    named = dataset([(label, value, split, n) for n, (label, value, split, _) in enumerate(ENOUGH * 2)])
    paris = replace(named, rows=named.rows.with_columns(pl.col("category").cast(pl.String).replace("dog", "Paris, TX")))
    assert held_out_values(paris, ["Paris, TX", "bird,cat"]) == ["Paris, TX", "bird", "cat"]
    assert "--split 'Paris, TX' (or all)" in str(what_is_held_out(_only(paris, "Paris, TX"), ["none"]))
    with pytest.raises(SelectionError, match=r"Did you mean bird\?.*bird, cat, dog"):
        held_out_values(data, ["brid"])
    assert held_out_values(data, ["DOG,Bird"]) == ["dog", "bird"], "in whatever case"
    with pytest.raises(SelectionError, match="--split all stands alone"):
        held_out_values(data, ["all,cat"])


def test_a_label_with_a_comma_cannot_be_held_out_by_its_name() -> None:
    names = {"cat": "cats, big", "dog": "dogs"}
    data = dataset([(names.get(value, value), value, split, n) for n, (_, value, split, _) in enumerate(ENOUGH * 2)])
    with pytest.raises(SelectionError, match="a comma divides names"):
        held_out_values(data, ["Cats, big", "dogs"], "label")


def _only(data: Dataset, first: str) -> Dataset:
    """The data with `first` as its first category."""
    names = pl.col("category").cast(pl.String).replace({"bird": "z", "cat": "z"})
    return replace(data, rows=data.rows.with_columns(names))


def test_where_nothing_is_held_out_a_line_says_what_could_be() -> None:
    data = dataset(ENOUGH)
    assert what_is_held_out(data, ["cat"]) is None
    assert "--split bird (or all)" in str(what_is_held_out(data, ["none"]))
    plain = replace(data, rows=data.rows.with_columns(category=pl.lit(None, dtype=pl.String)))
    assert "has no categories" in str(what_is_held_out(plain, ["none"]))


def test_a_line_says_which_labels_have_no_value_in_the_column_that_is_held_out() -> None:
    data = made_by(3, 4)
    line = str(what_is_held_out(data, ["g1"], "generator"))
    assert line.startswith("REAL images have no generator") and "one of the 3" in line
    assert (
        what_is_held_out(replace(data, rows=data.rows.filter(pl.col("label") == "FAKE")), ["g1"], "generator") is None
    )


def made_by(generators: int, each: int, equal: int = 0) -> Dataset:
    """FAKE images of some generators, and REAL ones, which have none; the first `equal` REAL test images have bytes
    that are in train, too."""
    rows, files = [], {}
    for split in ("train", "test"):
        for number in range(generators):
            rows += [(f"{split}/{number}/{i}.png", "FAKE", None, split, f"g{number}") for i in range(each)]
        rows += [(f"{split}/real/{i}.png", "REAL", None, split, None) for i in range(generators * each)]
    for number, (path, *_) in enumerate(rows):
        files[path] = number.to_bytes(4, "big")
    for i in range(equal):
        files[f"test/real/{i}.png"] = files[f"train/real/{i}.png"]
    names = ["path", "label", "category", "split", "generator"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Dataset("made", "made", frame, files.__getitem__, "folder")


@settings(max_examples=25, deadline=None)
@given(generators=st.integers(2, 5), each=st.integers(4, 6), equal=st.integers(0, 2))
def test_images_that_no_generator_made_are_divided_among_the_generators_by_their_content(
    generators: int, each: int, equal: int
) -> None:
    data, sides = made_by(generators, each, equal), {}
    for held_out in held_out_values(data, ["all"], "generator"):
        made = select(data, held_out, None, None, keep_leaks=True, by="generator")
        assert made.by == "generator" and set(made.novel["group"]) == {held_out}
        assert set(made.novel["label"]) == {"FAKE", "REAL"}
        assert held_out not in {*made.train["group"], *made.base["group"]}
        assert set(made.train["sha256"]).isdisjoint(made.novel["sha256"]), "equal bytes are in one group"
        for key in made.novel.filter(pl.col("label") == "REAL")["sha256"].unique():
            sides.setdefault(key, set()).add(held_out)
    assert all(len(values) == 1 for values in sides.values()), "each is novel for one generator alone"
    assert len(sides) == generators * each, "and each for one"


def test_an_invalid_column_to_split_by_is_an_error_that_lists_valid_ones() -> None:
    data = made_by(3, 4)
    with pytest.raises(SelectionError, match=r"no column 'genrator'.*Did you mean generator\?"):
        held_out_values(data, ["g0"], "genrator")
    with pytest.raises(SelectionError, match="no categories.*--split-by generator"):
        held_out_values(data, ["g0"])
    with pytest.raises(SelectionError, match="It is a category: say --split-by category"):
        held_out_values(dataset_with_sources(), ["cat"], "source")


def dataset_with_sources() -> Dataset:
    data = dataset(ENOUGH)
    numbers = pl.int_range(pl.len()) % 2
    return replace(data, rows=data.rows.with_columns(source=pl.format("s{}", numbers)))


def test_images_of_unknown_category_are_left_out_if_a_category_is_held_out() -> None:
    unknown = [(label, None, split, i) for i, (label, split) in enumerate([("FAKE", "train"), ("REAL", "test")])]
    data = dataset([*unknown, *ENOUGH])
    made = select(data, "cat", None, None)
    assert made.rows()["category"].null_count() == 0
    assert select(data, "none", None, None).rows()["category"].null_count() == 2


def test_unreadable_images_are_not_counted_and_the_next_ones_take_their_places() -> None:
    data = dataset([*ENOUGH, *[("REAL", "dog", "train", i) for i in range(50)]])

    def read(path: str) -> bytes:
        if int(path.removesuffix(".png")) % 3 == 0:
            raise ImageError("torn")
        return data.read(path)

    made = select(Dataset("torn", "", data.rows, read, "folder"), "cat", 3, 1)
    assert [int((made.train["label"] == label).sum()) for label in ("FAKE", "REAL")] == [3, 3]
    assert all(int(path.removesuffix(".png")) % 3 for path in made.rows()["path"])


def test_data_without_categories_has_no_novel_test() -> None:
    data = dataset(ENOUGH)
    plain = Dataset("plain", "", data.rows.with_columns(category=pl.lit(None, dtype=pl.String)), data.read, "folder")
    assert held_out_values(plain, []) == ["none"]
    made = select(plain, "none", 3, 2)
    assert len(made.novel) == 0 and list(made.tests()) == ["base"]
    with pytest.raises(SelectionError, match="no categories"):
        held_out_values(plain, ["cat"])


def test_too_few_images_is_an_error_that_says_how_many_there_are() -> None:
    rows = [row for row in ENOUGH if row[:3] != ("REAL", "cat", "test")]
    with pytest.raises(SelectionError, match="no novel test images of label 'REAL'"):
        select(dataset(rows), "cat", 2, 1)


def test_fewer_images_than_requested_are_all_used() -> None:
    made = select(dataset(ENOUGH), "cat", 450, 100)
    assert [len(rows) for rows in (made.train, made.base, made.novel)] == [8, 8, 4]


def test_if_all_test_images_are_leaks_the_error_says_how_to_keep_them() -> None:
    rows = [(label, category, split, i) for i, (label, category, split, _) in enumerate(ENOUGH)]
    leaking = [row if row[:3] != ("REAL", "cat", "test") else (*row[:3], 12) for row in rows]
    assert rows[12][:3] == ("REAL", "bird", "train")
    with pytest.raises(SelectionError, match=r"no novel test images.*2 test images were passed over.*--keep-leaks"):
        select(dataset(leaking), "cat", None, None)


def test_the_studys_own_selection_on_cifake(shared: Path) -> None:
    made = select(open_data(shared / "cifake-24k.zip"), "cat")
    assert made.train["path"].to_list()[0] == "train/FAKE/1000.jpg"
    assert made.base["path"].to_list()[:3] == ["test/FAKE/0.jpg", "test/FAKE/0 (2).jpg", "test/FAKE/0 (3).jpg"]
    assert [len(rows) for rows in (made.train, made.base, made.novel)] == [900, 200, 200]


def test_on_cifake_twenty_groups_of_duplicates_span_train_and_test(shared: Path) -> None:
    made = select(open_data(shared / "cifake-24k.zip"), "none", None, None)
    kept = select(open_data(shared / "cifake-24k.zip"), "none", None, None, keep_leaks=True)
    leaked = set(kept.base["sha256"]) & set(kept.train["sha256"])
    assert len(leaked) == 20
    assert made.leaks == len(kept.base) - len(made.base) == kept.base["sha256"].is_in(list(leaked)).sum()


@pytest.mark.parametrize("seed", [0, 3])
def test_fewer_training_images_are_the_first_of_more_and_the_test_images_stay(seed: int) -> None:
    largest = select(dataset(ENOUGH), "cat", 3, None, seed=seed)
    for size in (1, 2, 3):
        fewer = with_fewer(largest, size)
        alone = select(dataset(ENOUGH), "cat", size, None, seed=seed)
        assert fewer.train["path"].to_list() == alone.train["path"].to_list()
        assert fewer.train["label"].value_counts().sort("label")["count"].to_list() == [size, size]
        assert fewer.base.equals(largest.base) and fewer.novel.equals(largest.novel) and fewer.train_per_label == size
    assert with_fewer(largest, None) is largest


def test_no_size_tests_an_image_that_the_largest_trains_on() -> None:
    leak = [*ENOUGH[:1], ("FAKE", "bird", "test", ENOUGH[2][3]), *ENOUGH[1:]]
    largest = select(dataset(leak), "cat", 3, None)
    assert largest.leaks == 1 and with_fewer(largest, 1).base.equals(largest.base)


def test_fresh_images_to_calibrate_on_may_have_no_value_in_the_column_that_was_held_out() -> None:
    """Photographs have no generator, so they are of none that was held out."""
    rows = [(f"{n}.jpg", "FAKE", generator, "train") for n, generator in enumerate(["sd", "mj", None] * 4)]
    rows += [(f"{n}.jpg", "REAL", None, "train") for n in range(20, 26)]
    frame = pl.DataFrame(rows, schema=["path", "label", "generator", "split"], orient="row", infer_schema_length=None)
    frame = frame.with_columns(category=pl.lit(None, pl.String))
    dataset = Dataset("made", "made", frame, lambda path: path.encode(), "table")
    found = first_fresh(dataset, "sd", 10, NOTHING, "generator")
    assert found.group_by("label").len().sort("label").rows() == [("FAKE", 4), ("REAL", 6)]
    assert set(found.filter(pl.col("label") == "FAKE")["group"]) == {"mj"}
