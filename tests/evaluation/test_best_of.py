"""Which rows are worse than the best one, given that it was picked; and intervals whose unit is the category."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit.evaluation.best_of import compare_with_best
from toolkit.evaluation.intervals import of_mean, sign_flip
from toolkit.evaluation.metrics import mcnemar


def equal_heads(rng: np.random.Generator, heads: int, images: int, accuracy: float) -> np.ndarray:
    """`[heads, images]` bool: all right as often, on images that are hard for all of them or for some."""
    scores = rng.normal(size=images) + rng.normal(size=(heads, images))
    return scores < stats.norm.ppf(accuracy) * np.sqrt(2)


@pytest.mark.parametrize("heads, images, accuracy", [(6, 400, 0.8), (11, 2000, 0.9)])
def test_of_equal_heads_one_is_called_worse_in_at_most_6_percent_of_tables(
    heads: int, images: int, accuracy: float
) -> None:
    rng = np.random.default_rng(0)
    tables = [equal_heads(rng, heads, images, accuracy) for _ in range(300)]
    corrected = np.mean([(compare_with_best(right).p < 0.05).any() for right in tables])
    plain = np.mean([any(mcnemar(right[right.mean(axis=1).argmax()], one) < 0.05 for one in right) for right in tables])
    assert corrected <= 0.06 < 0.2 < plain, "without the correction it is far more"


def test_a_head_that_is_worse_is_called_so() -> None:
    right = equal_heads(np.random.default_rng(1), 6, 2000, 0.9)
    right[3] &= np.random.default_rng(2).random(2000) < 0.9
    found = compare_with_best(right)
    assert found.p[3] < 0.001 and (np.delete(found.p, 3) >= 0.05).all()


@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 99))
def test_the_best_is_not_worse_than_itself_and_no_p_is_below_mcnemars(heads: int, images: int, seed: int) -> None:
    right = np.random.default_rng(seed).random((heads, images)) < 0.7
    found = compare_with_best(right)
    assert found.best == right.mean(axis=1).argmax() and found.p[found.best] == 1 and found.flattery >= 0
    assert all(p >= mcnemar(right[found.best], one) for p, one in zip(found.p, right, strict=True))


def test_picking_the_best_of_equal_heads_flatters_and_of_one_does_not() -> None:
    rng = np.random.default_rng(3)
    tables = [equal_heads(rng, 6, 400, 0.8) for _ in range(50)]
    true = np.mean([right.mean(axis=1).max() - 0.8 for right in tables])
    said = np.mean([compare_with_best(right).flattery for right in tables])
    assert 0.5 * true < said < 1.5 * true
    assert compare_with_best(tables[0][:1]).flattery == 0


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([0.82, 0.91, 0.77, 0.85, 0.94])
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert of_mean(values) == pytest.approx(expected)
    assert np.isnan(of_mean(values[:1])).all()


@pytest.mark.parametrize("count", [3, 10])
def test_signs_are_flipped_as_scipy_flips_them(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.5, 1, count)
    expected = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert sign_flip(differences) == pytest.approx(expected)


def test_of_many_differences_some_signs_are_drawn() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    assert sign_flip(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
