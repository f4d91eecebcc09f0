"""Two classifiers on the same images: the interval of their difference, and what the images can tell."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from toolkit.evaluation.paired import interval, smallest_told


def test_the_interval_is_bonetts_and_prices_and_has_a_width_where_nothing_changed() -> None:
    gained, lost, images = 12, 5, 150
    gain = np.repeat([1, -1, 0], [gained, lost, images - gained - lost])
    p12, p21 = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    half = 1.959964 * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (images + 2))
    low, high = interval(gain, np.ones(images, int))
    assert (low, high) == pytest.approx((p12 - p21 - half, p12 - p21 + half), abs=1e-6)
    low, high = interval(np.zeros(50, int), np.ones(50, int))
    assert low < 0 < high


@pytest.mark.parametrize(("images", "gained", "lost"), [(60, 0.1, 0.05), (200, 0.05, 0.05), (400, 0.12, 0.08)])
def test_the_interval_holds_the_truth_in_95_of_100_draws(images: int, gained: float, lost: float) -> None:
    rng, truth = np.random.default_rng(0), gained - lost
    drawn = rng.choice([1, -1, 0], (2000, images), p=[gained, lost, 1 - gained - lost])
    ends = [interval(one, np.ones(images, int)) for one in drawn]
    assert np.mean([low <= truth <= high for low, high in ends]) > 0.93


@pytest.mark.parametrize(("images", "share"), [(200, 0.1), (400, 0.2), (100, 0.3), (2000, 0.05)])
def test_the_smallest_difference_told_is_found_in_about_80_of_100_draws(images: int, share: float) -> None:
    half = round(images * share / 2)
    least = smallest_told(np.repeat([1, -1, 0], [half, half, images - 2 * half]), np.ones(images, int))
    chances = [(share + least) / 2, (share - least) / 2, 1 - share]
    drawn = np.random.default_rng(0).multinomial(images, chances, 1500)
    told = [binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in drawn]
    assert 0.78 <= np.mean(told) <= 0.87


def test_where_the_two_hardly_ever_differ_it_is_what_the_test_needs_in_one_direction() -> None:
    least = smallest_told(np.zeros(200, int), np.ones(200, int))
    drawn = np.random.default_rng(0).binomial(200, least, 1500)
    assert np.mean([count > 0 and binomtest(int(count), int(count)).pvalue < 0.05 for count in drawn]) >= 0.78


def test_an_image_scored_twice_tells_no_more_than_once() -> None:
    gain, once = np.repeat([1, -1, 0], [10, 10, 180]), np.ones(200, int)
    assert smallest_told(2 * gain, 2 * once) == pytest.approx(smallest_told(gain, once))


def test_one_that_is_behind_by_the_margin_is_called_as_good_in_25_of_1000_draws() -> None:
    rng, images, behind = np.random.default_rng(1), 1000, 0.02
    drawn = rng.choice([1, -1, 0], (4000, images), p=[0.04, 0.04 + behind, 0.92 - behind])
    called = np.mean([interval(one, np.ones(images, int))[0] > -behind for one in drawn])
    assert called == pytest.approx(0.025, abs=0.008)
