"""How much better than the study's way: the same images, over all held-out categories."""

import io

import numpy as np
import polars as pl
import pytest

from toolkit.evaluation import columns
from toolkit.evaluation.metrics import paired_difference
from toolkit.evaluation.scoring import score, with_p_best
from toolkit.results.summary import AS_GOOD, BEST, against_study, left_out_means, over_seeds, standing, summary
from toolkit.results.workbook import workbook_bytes


def test_the_difference_and_its_interval_are_those_of_drawing_images_one_by_one() -> None:
    rng = np.random.default_rng(0)
    values, strata = rng.integers(-1, 2, 300) / 300, np.repeat(["a", "b", "c"], 100)
    values[:100] = np.abs(values[:100])
    difference, low, high = paired_difference(values, strata)
    drawn = [sum(values[strata == s][rng.integers(100, size=100)].sum() for s in ("a", "b", "c")) for _ in range(4000)]
    assert difference == pytest.approx(values.sum())
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)


def test_equal_predictions_differ_by_zero() -> None:
    assert paired_difference(np.zeros(10), np.repeat("a", 10)) == (0, 0, 0)


def predictions(held_out: str, encoder: str, recipe: str, head: str, right: dict[str, list[bool]]) -> pl.DataFrame:
    """One row an image: `right` says for each test set which images were called right; all are FAKE."""
    rows = [
        {"held_out": held_out, "encoder": encoder, "recipe": recipe, "head": head, "test": test, "label": "FAKE"}
        | {"path": f"{test if test == 'base' else held_out}/{i}", "category": held_out if test == "novel" else "dog"}
        | {
            "predicted": "FAKE" if is_right else "REAL",
            "encoder_id": f"{encoder}-{held_out}" if recipe else encoder,
            "perturbation": "",
        }
        | {"test_data": "", "dataset": "made", "seed": 0, "p_real": 0.1 if is_right else 0.9}
        for test, each in right.items()
        for i, is_right in enumerate(each)
    ]
    return pl.DataFrame(rows, schema=columns.schema(columns.PREDICTIONS))


def made() -> pl.DataFrame:
    half, most = [True, False] * 20, [True, True, True, False] * 10
    both = []
    for held_out in ("cat", "frog"):
        both.append(predictions(held_out, "finetuned", "study", "zero-shot", {"base": half, "novel": half}))
        both.append(predictions(held_out, "finetuned", "robust", "logreg", {"base": half, "novel": most}))
    return pl.concat(both)


def scored(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(score(frame, ["FAKE", "REAL"], 0), schema=columns.schema(columns.RESULTS))


def against(frame: pl.DataFrame) -> pl.DataFrame:
    return against_study(scored(frame), frame)


def test_each_line_is_set_against_the_studys_way_on_the_same_images() -> None:
    found = against(made())
    base, novel = (found.filter(pl.col("test") == test).row(0, named=True) for test in ("base", "novel"))
    assert found["recipe"].unique().to_list() == ["robust"]
    assert novel["difference"] == pytest.approx(0.25)
    assert 0 < novel["difference_low"] < 0.25 < novel["difference_high"]
    assert (base["difference"], base["difference_low"], base["difference_high"]) == (0, 0, 0)


def test_an_image_that_two_comparisons_share_counts_as_one_image() -> None:
    """Base images come again with every category that is held out: twice the rows are no more knowledge."""
    rng = np.random.default_rng(0)
    one, other = (rng.random(200) < share for share in (0.5, 0.7))
    twice = [
        predictions(held_out, *way, {"base": list(map(bool, right))})
        for held_out in ("cat", "frog")
        for way, right in ((("finetuned", "study", "zero-shot"), one), (("base", "", "knn"), other))
    ]
    found = against(pl.concat(twice)).row(0, named=True)
    values = (other.astype(float) - one) / 200
    assert (found["difference"], found["difference_low"], found["difference_high"]) == pytest.approx(
        paired_difference(values, np.repeat("dog", 200)), abs=0.015
    )


def test_the_held_out_value_is_the_unit_on_novel_images_alone() -> None:
    """On base the values share most of their images: they are no draws of anything."""
    values = ["categories_low", "categories_high", "p_categories", "wins", "losses"]
    frame = made()
    for found, names in ((against(frame), values), (left_out_means(scored(frame)), ["mean_low", "mean_high"])):
        base, novel = (found.filter(pl.col("test") == test).select(names) for test in ("base", "novel"))
        assert len(base) and set(base.null_count().row(0)) == {len(base)}
        assert len(novel) and set(novel.null_count().row(0)) == {0}


@pytest.mark.parametrize("identity", ["0", "zzz"])
def test_of_an_encoder_that_was_trained_again_the_newest_is_set_against_the_study(identity: str) -> None:
    wrong = {"base": [False] * 40, "novel": [False] * 40}
    older = predictions("cat", "finetuned", "robust", "logreg", wrong).with_columns(encoder_id=pl.lit(identity))
    is_old = pl.col("encoder_id") == identity
    for frame in (pl.concat([made(), older]), pl.concat([older, made()])):
        table = scored(frame).with_columns(created=pl.when(is_old).then(pl.lit("2025")).otherwise(pl.lit("2026")))
        novel = against_study(table, frame).filter(pl.col("test") == "novel")
        assert novel["difference"].to_list() == pytest.approx([0.25])


def test_rows_that_are_equally_accurate_are_all_the_best() -> None:
    right = {"novel": [True, False] * 20}, {"novel": [False, True] * 20}, {"novel": [False, False] * 20}
    frame = pl.concat(predictions("cat", "base", "", head, one) for head, one in zip("abc", right, strict=True))
    frame = frame.with_columns(sha256="path")
    found = summary(with_p_best(scored(frame), frame))
    assert dict(found.select("head", "novel_standing").iter_rows()) == {"a": BEST, "b": BEST, "c": ""}
    behind = {"accuracy": 0.9, "p_best": 1.0, "difference_best_low": -0.01}
    assert [standing({**behind, "difference_best": one}) for one in (0.0, -0.001)] == [BEST, AS_GOOD]


def test_the_workbook_shows_the_difference_and_its_interval() -> None:
    frame = made()
    table = scored(frame)
    shown = pl.read_excel(
        io.BytesIO(workbook_bytes(table, frame)),
        sheet_name="Leave-one-out",
        engine="calamine",
        read_options={"header_row": 1},
    )
    row = shown.filter((pl.col("Recipe") == "robust") & (pl.col("Test") == "novel")).row(0, named=True)
    found = against(frame).filter(pl.col("test") == "novel").row(0, named=True)
    assert row["Against the study's way"] == pytest.approx(0.25)
    assert row["Difference from"] == pytest.approx(found["difference_low"])
    assert row["Difference to"] == pytest.approx(found["difference_high"])


def test_with_one_category_or_other_images_there_is_nothing_to_compare() -> None:
    frame = made()
    assert against(frame.filter(pl.col("held_out") == "cat")).is_empty()
    is_study = pl.col("recipe") == "study"
    assert against(frame.filter(~is_study | (pl.col("path") != "cat/3"))).select("test").to_series().to_list() == [
        "base"
    ]


def results(held_out: str, accuracy: float, **about: object) -> dict[str, object]:
    every: dict[str, object] = {
        "dataset": "made",
        "held_out": held_out,
        "encoder": "base",
        "recipe": "",
    }
    every |= {"head": "knn", "test": "novel", "class": "all", "accuracy": accuracy, "seed": 0, "perturbation": ""}
    return every | {"test_data": "", "adapted": "", "created": "2026-01-01 00:00:00"} | about


def test_encoders_with_other_weights_have_means_of_their_own_and_one_trained_again_counts_once() -> None:
    tuned = {"encoder": "finetuned", "recipe": "study"}
    rows = [
        *[results(held_out, accuracy, encoder_id="fp32") for held_out, accuracy in (("cat", 0.6), ("dog", 0.8))],
        *[results(held_out, accuracy, encoder_id="bf16") for held_out, accuracy in (("cat", 0.5), ("dog", 0.6))],
        *[results(held_out, 0.9, encoder_id=f"new {held_out}", **tuned) for held_out in ("cat", "dog")],
        results("cat", 0.1, encoder_id="an older one", created="2025-01-01 00:00:00", **tuned),
    ]
    table = pl.DataFrame(rows, schema=columns.schema(columns.RESULTS))
    found = left_out_means(table).select("encoder_id", "categories", "mean").rows()
    assert found == [("fp32", 2, pytest.approx(0.7)), ("bf16", 2, pytest.approx(0.55)), ("", 2, pytest.approx(0.9))]
    twice = pl.concat([table.with_columns(seed=pl.lit(seed, pl.Int64)) for seed in (1, 2)])
    assert set(over_seeds(twice)["deviation"]) == {0.0}, "draws of one encoder do not differ here"
