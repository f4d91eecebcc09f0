"""The built-in sample is reproducible, and neither trivial nor impossible."""

import hashlib

import numpy as np
import polars as pl

from toolkit.data.images import decode
from toolkit.data.sources.sample import PHOTOGRAPHS, make, part_of, photograph, sample


def digest() -> str:
    made = sample()
    return hashlib.sha256(b"".join(made.read(path) for path in made.rows["path"])).hexdigest()


def test_it_is_made_of_the_same_bytes_each_time() -> None:
    first = digest()
    make.cache_clear()
    assert digest() == first


def test_it_has_ten_categories_with_cat_and_a_few_hundred_crops_of_each() -> None:
    counts = sample().rows.group_by("category", "split", "label").len()
    assert len(sample().categories()) == 10 and "cat" in sample().categories()
    assert set(counts.filter(pl.col("split") == "train")["len"]) == {90}
    assert set(counts.filter(pl.col("split") == "test")["len"]) == {110}


def test_no_two_crops_are_the_same_and_all_are_32_by_32() -> None:
    made = sample()
    files = [made.read(path) for path in made.rows["path"]]
    assert len(set(files)) == len(files)
    assert {decode(data).size for data in files[::37]} == {(32, 32)}


def test_train_and_test_crops_come_from_disjoint_parts_of_a_photograph() -> None:
    for place in PHOTOGRAPHS.values():
        whole = photograph(*place)
        train, test = part_of(whole, "train"), part_of(whole, "test")
        assert train.shape[1] + test.shape[1] == whole.shape[1]
        assert np.array_equal(np.concatenate([train, test], axis=1), whole)


def test_the_labels_differ_neither_in_brightness_nor_in_contrast() -> None:
    made = sample()
    pixels = {
        label: np.stack([np.asarray(decode(made.read(p))) for p in made.rows.filter(pl.col("label") == label)["path"]])
        for label in ("FAKE", "REAL")
    }
    means, spreads = ([float(f(pixels[label])) for label in ("FAKE", "REAL")] for f in (np.mean, np.std))
    assert abs(means[0] - means[1]) < 3 and abs(spreads[0] - spreads[1]) < 3


def test_the_first_images_of_a_label_are_of_every_category() -> None:
    rows = sample().rows.filter((pl.col("label") == "FAKE") & (pl.col("split") == "train"))
    assert rows["category"].head(10).n_unique() == 10
