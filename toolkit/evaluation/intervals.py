"""What the metrics share to say how sure they are.

Wilson's interval is four lines of our own and the exact test is one call of scipy.special, not scipy.stats.binomtest:
importing scipy.stats takes 0.56 s of processor time, scipy.special 0.14 s, and each interval 0.25 ms instead of 1 µs.
The page needs nothing else of scipy. The tests compare both with binomtest.
"""

import math

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054  # the normal quantile of LEVEL, two-sided
REPLICATES = 1000
FEW = 5
"""Classes with fewer test images are drawn together, since an image that is alone would never vary."""
MOST_FLIPPED, FLIPS = 16, 100_000

Interval = tuple[float, float]


def wilson(successes: float, trials: float) -> Interval:
    """The Wilson score interval of a share at 95 % (Wilson 1927; Brown, Cai & DasGupta 2001, section 3.1.1).

    Of no trials at all it is (0, 1): nothing is known.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, Z * Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def t_quantile(freedom: int) -> float:
    """The two-sided `LEVEL` quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def of_mean(values: np.ndarray) -> Interval:
    """Student's t interval of the mean of `values` `[K]` at 95 %; not a number for fewer than two.

    The values are independent draws of what a claim is about: one for each held-out category, say, where it is about
    categories that nobody trained on.
    """
    if len(values) < 2:
        return math.nan, math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = t_quantile(len(values) - 1) * error
    return mean - half, mean + half


def sign_flip(differences: np.ndarray) -> float:
    """The two-sided p-value that `differences` `[K]` are symmetric about zero (Fisher 1935, section 21).

    Exact up to `MOST_FLIPPED` differences: over all their signs. Beyond, over `FLIPS` draws of the signs.
    """
    count = len(differences)
    if count <= MOST_FLIPPED:
        signs = 1 - 2 * (np.arange(1 << count)[:, None] >> np.arange(count) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (FLIPS, count))
    sums = np.abs(signs @ differences)
    return float((sums >= abs(differences.sum()) - 1e-12).mean())


def drawn_together(counts: np.ndarray) -> np.ndarray:
    """Of classes with so many test images `[K]`: which are one stratum, as they have fewer than `FEW`, `[K]` bool. A
    single such image is joined by the smallest other class."""
    few = (counts > 0) & (counts < FEW)
    if counts[few].sum() == 1 and (counts >= FEW).any():
        few[np.where(counts >= FEW, counts, counts.max() + 1).argmin()] = True
    return few


def named(name: str, interval: Interval) -> dict[str, float]:
    """The interval's two columns."""
    return {f"{name}_low": float(interval[0]), f"{name}_high": float(interval[1])}


def percentiles(values: np.ndarray) -> Interval:
    """The middle `LEVEL` of bootstrap replicates."""
    low, high = np.percentile(values, [50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)])
    return float(low), float(high)
