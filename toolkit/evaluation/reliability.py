"""Expected calibration error: the figure, its interval, and what a perfectly calibrated head would show."""

import math

import numpy as np

from toolkit.evaluation.intervals import REPLICATES, Interval, percentiles

BINS = 15
FEW = 64
"""Up to so many images in a bin its expected distance is exact; beyond, that of a normal distribution."""


def calibration_error(positive: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error of the probabilities `p` `[N]` of `positive` `[N]` bool, over `BINS` bins of equal
    width (Guo et al. 2017, section 2)."""
    return float(np.abs(np.bincount(_bins(p), positive - p, BINS)).sum() / len(p))


def expected_error(p: np.ndarray) -> float:
    """The mean calibration error of a head whose probabilities `p` `[N]` are right: that of chance alone."""
    bins = _bins(p)
    return sum(_expected_distance(p[bins == one]) for one in np.unique(bins)) / len(p)


def error_interval(positive: np.ndarray, p: np.ndarray, rng: np.random.Generator) -> Interval:
    """The 95 % interval of the calibration error of `p` `[N]` among all images like these.

    Chance makes the error larger, and resampling makes it larger once more, so that percentiles would lie above the
    truth. They are mirrored at the figure (the basic bootstrap: Davison & Hinkley 1997, section 5.2). The lower end is
    0 where a perfectly calibrated head would show as much. Resampled sums of a bin are normal with its variance.
    """
    bins = _bins(p)
    gaps = positive - p
    sums, own, calibrated = (np.bincount(bins, each, BINS) for each in (gaps, gaps**2, p * (1 - p)))
    error, noise = float(np.abs(sums).sum()), rng.standard_normal((REPLICATES, BINS), dtype=np.float32)
    low, high = percentiles(np.abs(sums + np.sqrt(own) * noise).sum(axis=1))
    by_chance = percentiles(np.abs(np.sqrt(calibrated) * noise).sum(axis=1))[1]
    least = 0.0 if error <= by_chance else max(2 * error - high, 0.0)
    return least / len(p), min(max(2 * error - low, error) / len(p), 1.0)


def _bins(p: np.ndarray) -> np.ndarray:
    return np.minimum((p * BINS).astype(np.int64), BINS - 1)


def _expected_distance(p: np.ndarray) -> float:
    """The mean distance of the number of hits from its expectation, where image `i` is a hit with `p[i]`: the
    Poisson-binomial distribution by its Fourier transform (Hong 2013)."""
    if len(p) > FEW:
        return math.sqrt(2 / math.pi * float((p * (1 - p)).sum()))
    turns = np.exp(2j * np.pi * np.arange(len(p) + 1) / (len(p) + 1))
    shares = np.fft.fft(np.prod(1 - p[:, None] + p[:, None] * turns, axis=0)).real / (len(p) + 1)
    return float(np.abs(np.arange(len(p) + 1) - p.sum()) @ shares)
