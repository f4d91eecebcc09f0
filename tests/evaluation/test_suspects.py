"""`data suspects`: an image is scored by probes that were not trained on it, and wrong labels come first."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from fakes import FakeEncoder
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from trees import coloured_files, write_folder

from toolkit.cache.embedding import embed_images
from toolkit.cache.store import Cache
from toolkit.cli import main as cli
from toolkit.data.sources import open_data
from toolkit.data.split import Split, select
from toolkit.errors import SelectionError
from toolkit.evaluation import suspects
from toolkit.heads import make_head
from toolkit.pipeline.suspects import calls

Flipped = tuple[Split, Cache, set[str]]


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> Flipped:
    """Three labels that a probe tells apart; six labels in train and three in test are wrong."""
    home = tmp_path_factory.mktemp("flipped")
    write_folder(home / "data", coloured_files(["blue", "green", "red"], 30, 15))
    rows = open_data(home / "data").rows.select(pl.all().cast(pl.String))
    wrong = {
        *rows.filter(pl.col("split") == "train")["path"][::15],
        *rows.filter(pl.col("split") == "test")["path"][::15],
    }
    other = pl.col("label").replace_strict({"blue": "green", "green": "red", "red": "blue"})
    rows = rows.with_columns(label=pl.when(pl.col("path").is_in(list(wrong))).then(other).otherwise("label"))
    rows.write_csv(home / "data/flipped.csv")
    data, encoder = open_data(home / "data/flipped.csv"), FakeEncoder()
    split, cache = select(data, "none", None, None), Cache(home / "cache", encoder.record)
    embed_images(data, split.rows(), lambda: encoder, cache)
    return split, cache, wrong


@pytest.mark.parametrize("head", ["lda", "logreg", "knn"])
def test_the_flipped_labels_come_first_with_the_right_suggestion(flipped: Flipped, head: str) -> None:
    split, cache, wrong = flipped
    found = suspects.find(split, cache, head, "folds")
    assert len(found) == len(split.rows()) and set(found.columns) == set(suspects.COLUMNS)
    for of, count in (("train", 6), ("test", 3)):
        first = found.filter(pl.col("split") == of).head(count)
        assert set(first["path"]) == wrong & set(found.filter(pl.col("split") == of)["path"])
        assert first["rank"].to_list() == list(range(1, count + 1))
        truth = [Path(path).parts[-2] for path in first["path"]]
        assert first["suggested"].to_list() == truth
    confident = set(found.filter("suspect")["path"])
    assert confident and confident <= wrong


def test_no_image_is_scored_by_a_probe_that_saw_it(flipped: Flipped) -> None:
    """What an image's own label is changes nothing about the scores of its fold: they come from the other folds."""
    split, cache, _ = flipped
    scores = suspects.find(split, cache, "lda", "folds").filter(pl.col("split") == "train")
    fitted = make_head("lda", {}, "folds", 0)
    X, y = cache.read_images(split.train["sha256"].to_list()), split.train["label"].to_numpy()
    seen = fitted.fit(X, y).predict_proba(X)
    of_label = dict(zip(split.train["path"], seen[np.arange(len(y)), np.searchsorted(fitted.classes_, y)], strict=True))
    wrong = scores.filter("suspect")
    assert all(p < of_label[path] for path, p in wrong.select("path", "p_label").iter_rows())


def test_test_images_are_scored_by_the_head_on_all_training_images(flipped: Flipped) -> None:
    split, cache, _ = flipped
    found = suspects.find(split, cache, "lda", "folds").filter(pl.col("split") == "test").sort("path")
    X, y = (cache.read_images(split.train["sha256"].to_list()), split.train["label"].to_numpy())
    unit = [
        one / np.linalg.norm(one, axis=1, keepdims=True) for one in (X, cache.read_images(found["sha256"].to_list()))
    ]
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(unit[0], y).predict(unit[1])
    assert (found["suggested"].to_numpy() == reference).mean() > 0.95


def test_copies_of_an_image_are_left_out_together(flipped: Flipped, tmp_path: Path) -> None:
    """A copy with the same wrong label must not vouch for it; nearest neighbours would believe it at once."""
    split, cache, _ = flipped
    wrong = suspects.find(split, cache, "knn", "folds").filter(pl.col("split") == "train").row(0, named=True)
    copy = split.train.filter(pl.col("path") == wrong["path"]).with_columns(path=pl.lit("copy.jpg"))
    doubled = Split("none", pl.concat([split.train, *[copy] * 8]), split.base, split.novel, 0)
    found = suspects.find(doubled, cache, "knn", "folds")
    assert found.filter(pl.col("path") == wrong["path"])["suspect"].all()


def test_a_head_that_needs_prompts_or_other_vectors_is_refused(flipped: Flipped) -> None:
    split, cache, _ = flipped
    for head in ("zero-shot", "shortcut", "tip-adapter"):
        with pytest.raises(SelectionError, match="no probe on the vectors"):
            suspects.find(split, cache, head, "folds")


@pytest.fixture(scope="module")
def embedded(flipped: Flipped, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    home = tmp_path_factory.mktemp("embedded")
    shutil.copytree(flipped[1].folder.parent.parent / "data", home / "data")
    words = ["--data", home / "data/flipped.csv", "--model", "nano", "--full"]
    words += ["--cache", home / "cache", "--results", home / "results"]
    assert call("embed", *words, "--features", "blocks").exit_code == 0
    return home, words


def test_the_command_writes_a_table_that_can_be_corrected_and_read_again(embedded: tuple[Path, list[object]]) -> None:
    home, words = embedded
    result = call("data", "suspects", *words)
    assert result.exit_code == 0, result.output
    assert "lda on the blocks of nano" in result.output
    written = pl.read_csv(home / "results/suspects.csv")
    assert "Only the first 10 of each split are shown" in result.output
    for split in ("train", "test"):
        mine = written.filter(pl.col("split") == split)
        agrees = (mine["suggested"] == mine["label"]).sum()
        called = f"{split}: {len(mine) - agrees} of {len(mine)} images are called otherwise"
        assert called in result.output and f"accuracy is {agrees / len(mine):.3f}." in result.output
    right = written.with_columns(label=pl.col("path").str.split("/").list.get(-2))
    right.write_csv(home / "data/corrected.csv")
    corrected = open_data(home / "data/corrected.csv").rows
    assert len(corrected) == 3 * 45
    assert all(Path(path).parts[-2] == label for path, label in corrected.select("path", "label").iter_rows())
    page = (home / "results/suspects.html").read_text()
    assert page.count('<img src="data:image') == 60 + 45 and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(("right", "warned"), [(7, False), (6, True)])
def test_a_probe_that_is_often_wrong_itself_is_no_witness(right: int, warned: bool) -> None:
    called = ["FAKE"] * right + ["REAL"] * (10 - right)
    images = pl.DataFrame({"split": "train", "label": "FAKE", "suggested": called, "suspect": False})
    assert ("do not correct labels" in calls(images, "train")) == warned


def test_json_lists_every_image(embedded: tuple[Path, list[object]]) -> None:
    rows = json.loads(call("data", "suspects", *embedded[1], "--head", "layer-probes", "--json").stdout)
    assert len(rows) == 3 * 45 and set(rows[0]) == set(suspects.COLUMNS)


def test_images_that_are_not_embedded_are_one_line_that_says_what_to_run(embedded: tuple[Path, list[object]]) -> None:
    result = call("data", "suspects", *embedded[1][:-3], embedded[0] / "elsewhere", *embedded[1][-2:])
    assert result.exit_code == 2 and "run python cli.py embed" in result.output


def test_where_all_images_of_a_label_are_copies_nothing_can_contradict_them(flipped: Flipped) -> None:
    split, cache, _ = flipped
    of_red, first = pl.col("label") == "red", split.train.filter(pl.col("label") == "red")["sha256"][0]
    train = split.train.with_columns(sha256=pl.when(of_red).then(pl.lit(first)).otherwise("sha256"))
    with pytest.raises(SelectionError, match="copies of each other"):
        suspects.find(replace(split, train=train), cache, "lda", "folds")
