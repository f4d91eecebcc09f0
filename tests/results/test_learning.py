"""Learning curves: which studies are one, what the intervals are, and what is said."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import Images, predict, store, study
from scipy.stats import t

from toolkit.results import learning, tables
from toolkit.results.report import page

SIZES = (1, 4, 16)
BETTER = {1: 0.5, 4: 0.7, 16: 0.95}
"""Number of images -> the share that the probe gets right; the prompts get half, the fine-tuned encoder 0.02 more."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("data"))


def right(size: int, seed: int) -> dict[tuple[str, str], tuple[float, float]]:
    probe = BETTER[size] - 0.05 * max(seed - 1, 0)
    return {
        ("base", "zero-shot"): (0.5, 0.5),
        ("base", "logreg"): (probe, probe),
        ("base", "clap"): (probe - 0.2, probe - 0.2),
        ("finetuned", "logreg"): (probe + 0.02, probe + 0.02),
    }


def run(images: Images, size: int, seed: int = 0) -> list[pl.DataFrame]:
    """The predictions of one comparison."""
    every = study(images, right(size, seed), seed=seed, train_per_label=size)
    return [one.with_columns(images=pl.lit(f"{images.digest}-{size}-{seed}")) for one in every]


@pytest.fixture(scope="module")
def made(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sizes and two seeds."""
    every = [one for size in SIZES for seed in (1, 2) for one in run(images, size, seed)]
    return store(tmp_path_factory.mktemp("results"), every)


def the_curve(folder: Path) -> learning.Curve:
    (curve,) = learning.find(*tables.read(folder))
    return curve


def test_points_are_means_and_deviations_over_the_seeds(made: Path) -> None:
    table = tables.read(made)[0]
    points = the_curve(made).points
    assert points["train_per_label"].unique().to_list() == list(SIZES) and len(points) == 4 * 2 * 3
    for row in points.iter_rows(named=True):
        same = [pl.col(name) == row[name] for name in ("encoder", "head", "test", "train_per_label")]
        figures = table.filter(*same, pl.col("class") == "all")["accuracy"].to_numpy()
        assert (row["seeds"], row["mean"]) == (2, pytest.approx(figures.mean()))
        assert row["deviation"] == pytest.approx(figures.std(ddof=1))


def test_a_gain_and_its_interval_are_those_of_a_plain_computation(made: Path) -> None:
    curve, predictions = the_curve(made), tables.read(made)[1]
    gains = curve.gains(str(curve.best("probe")), str(curve.best("prompt")), "novel")
    for gain in gains:
        hits = {}
        for head in ("logreg", "zero-shot"):
            kept = pl.col("head") == head, pl.col("train_per_label") == gain.size, pl.col("test") == "novel"
            mine = predictions.filter(pl.col("encoder") == "base", *kept).sort("seed", "path")
            hits[head] = (mine["label"] == mine["predicted"]).to_numpy().reshape(2, -1).astype(float)
        each = hits["logreg"] - hits["zero-shot"]
        of_images = np.append(each.sum(axis=0), [2, -2])  # one image more that gained in both runs, and one that lost
        middle = of_images.mean() / 2
        error = np.sqrt(((of_images - 2 * middle) ** 2).sum()) / (2 * len(of_images))
        of_seeds = each.mean(axis=1).var(ddof=1) / 2
        half = np.sqrt((1.96 * error) ** 2 + t.ppf(0.975, 1) ** 2 * of_seeds)
        assert (gain.mean, gain.low) == (pytest.approx(each.mean()), pytest.approx(middle - half, abs=1e-4))


def test_four_images_of_two_hundred_prove_nothing(tmp_path: Path) -> None:
    """McNemar's test of 4 against 0 has p = 0.125."""
    images = Images(tmp_path / "data", each=100)
    every = [
        one.with_columns(images=pl.lit(f"{images.digest}-{size}"))
        for size in (4, 16)
        for one in (
            predict(images, 0.5, 0, head="zero-shot", train_per_label=size),
            predict(images, 0.5, 0, head="logreg", train_per_label=size).with_columns(
                predicted=pl.when(pl.col("path").is_in(_wrong(images)[:4])).then("label").otherwise("predicted")
            ),
        )
    ]
    curve = the_curve(store(tmp_path / "results", every))
    for gain in curve.gains(str(curve.best("probe")), str(curve.best("prompt")), "base"):
        assert gain.mean == 0.02 and gain.low < 0


def _wrong(images: Images) -> list[str]:
    made = predict(images, 0.5, 0, head="zero-shot")
    return made.filter(pl.col("label") != pl.col("predicted"))["path"].to_list()


def test_a_curve_is_of_the_held_out_values_that_every_size_has(images: Images, tmp_path: Path) -> None:
    both = [
        one for held_out in ("cat", "dog") for one in study(images, right(4, 0), held_out=held_out, train_per_label=4)
    ]
    cat = study(images, right(16, 0), held_out="cat", train_per_label=16)
    every = [one.with_columns(images=pl.lit(f"{images.digest}-{one['train_per_label'][0]}")) for one in (*both, *cat)]
    curve = the_curve(store(tmp_path, every))
    assert curve.sizes == [4, 16] and set(curve.table["held_out"]) == set(curve.right["held_out"]) == {"cat"}


def test_heads_on_prompts_that_learn_are_probes(made: Path) -> None:
    ways = dict(the_curve(made).points.select("name", "way").iter_rows())
    assert ways["base CLIP · clap"] == "probe" and ways["base CLIP · zero-shot"] == "prompt"


def answer(*intervals: tuple[float, float]) -> learning.Answer:
    ends = [learning.Gain(4**number, (low + high) / 2, low, high) for number, (low, high) in enumerate(intervals)]
    return learning.Answer("novel", "a probe (x)", "the prompts (y)", ends)


@pytest.mark.parametrize(
    ("intervals", "since"),
    [
        ([(0.1, 0.2), (0.1, 0.2), (0.1, 0.2)], 1),
        ([(0.1, 0.2), (-0.1, 0.2), (0.1, 0.2)], 16),
        ([(-0.1, 0.2), (0.1, 0.2), (0.1, 0.2)], 4),
        ([(0.1, 0.2), (0.1, 0.2), (0.0, 0.2)], None),
        ([(-0.2, -0.1)], None),
    ],
)
def test_from_where_on_is_the_size_behind_the_last_interval_that_holds_zero(
    intervals: list[tuple[float, float]], since: int | None
) -> None:
    assert answer(*intervals).since == since


def test_what_is_said_follows_from_the_intervals() -> None:
    said = [learning.sentence(answer(*ends)) for ends in ([(-0.1, 0.1), (0.1, 0.2)], [(-0.1, 0.1)], [(-0.2, -0.1)])]
    assert said == [
        "Novel: from 4 images a label on, a probe (x) beats the prompts (y): +15.0 points [+10.0, +20.0] at 4.",
        "Novel: with up to 1 image a label, a probe (x) is not significantly better than the prompts (y): "
        "+0.0 points [−10.0, +10.0] at 1.",
        "Novel: with 1 image a label, a probe (x) loses to the prompts (y): −15.0 points [−20.0, −10.0] at 1.",
    ]


def test_each_contest_is_answered_on_each_test_set(made: Path) -> None:
    *said, meaning = learning.lines(*tables.read(made))
    assert [line.split(":")[0] for line in said] == ["Novel", "Base"] * 2 and "2 seeds" in meaning
    assert "a probe (base CLIP · logreg)" in said[0] and "fine-tuning (fine-tuned CLIP · logreg)" in said[3]


def test_other_test_images_begin_another_curve_and_one_size_is_none(images: Images, made: Path, tmp_path: Path) -> None:
    others = Images(tmp_path / "data", categories=("dog", "cat"), each=7)
    two = run(others, 16)
    curve = the_curve(store(tmp_path / "mixed", [*run(images, 1), *run(images, 4), *two]))
    assert curve.sizes == [1, 4]
    assert learning.find(*tables.read(store(tmp_path / "single", two))) == []


def test_page_and_workbook_have_them(made: Path) -> None:
    written = page.write(made)
    assert {path.stem for path in written.pictures} >= {"learning-base", "learning-novel"}
    html = written.page.read_text()
    assert "How many images must be labelled?" in html and html.count('aria-label="Learning curves') == 2
    assert re.search(r"<li>Novel: [^<]*a probe \(base CLIP · logreg\)", html)
    sheet = pl.read_excel(made / "results.xlsx", sheet_name="Learning curves", read_options={"header_row": 1})
    points = the_curve(made).points
    assert len(sheet) == len(points) and sheet["Mean accuracy"].to_list() == pytest.approx(points["mean"].to_list())
    assert sheet.filter(pl.col("Head") == "zero-shot")["Gain over prompts"].null_count() == 3 * 2
