"""Intervals and tests, without a statistics library: each small, seeded where it draws, and named after its source.

All intervals are two-sided, at CONFIDENCE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slmc.strict import Strict

CONFIDENCE = 0.95
Z = 1.959963984540054
"""Normal quantile of CONFIDENCE, two-sided."""
Z_POWER = 0.8416212335729143
"""Normal quantile of 80% power."""
DRAWS = 10_000
"""Of three shares at once."""
MEAN_DRAWS = 2_000
"""Of all items."""
SEED = 20


class Interval(Strict):
    low: float
    high: float


class Proportion(Strict):
    """A count out of a total with its Wilson interval."""

    count: int
    total: int
    share: float
    interval: Interval


class Paired(Strict):
    """The same items answered twice: how many were lost, won, or answered otherwise but no better or worse."""

    lost: int
    won: int
    changed: int
    """Another answer, right or wrong as before."""
    total: int
    drop: float
    """(lost - won) / total."""
    interval: Interval
    p_value: float
    """Exact McNemar, two-sided: the chance of so uneven a split of the flips if neither were better."""
    detectable: float
    """The smallest true drop that a sample of this size and as many flips would have shown with 80% power."""


def proportion(count: int, total: int) -> Proportion:
    """Wilson's score interval (E. B. Wilson 1927), which also holds for shares near 0 and 1."""
    share = count / total
    scale = 1 + Z * Z / total
    centre = (share + Z * Z / (2 * total)) / scale
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total)) / scale
    # At the ends the interval touches 0 or 1 exactly; rounding must not push it past the share.
    low, high = max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))
    return Proportion(count=count, total=total, share=share, interval=Interval(low=low, high=high))


def paired(lost: int, won: int, changed: int, total: int) -> Paired:
    return Paired(
        lost=lost,
        won=won,
        changed=changed,
        total=total,
        drop=(lost - won) / total,
        interval=_drop_interval(lost, won, total),
        p_value=mcnemar(lost, won),
        detectable=_detectable(lost, won, total),
    )


def mcnemar(lost: int, won: int) -> float:
    """Twice the smaller tail of Binomial(lost + won, 1/2), at most 1 (Q. McNemar 1947, exact)."""
    flips = lost + won
    ways = tail = 1  # of choosing 0 flips, then summed up; exact, as floats would run out at 1,000 flips
    for count in range(min(lost, won)):
        ways = ways * (flips - count) // (count + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << flips))


def _drop_interval(lost: int, won: int, total: int) -> Interval:
    """Bayesian bootstrap (D. B. Rubin 1981) of the paired drop.

    An item is lost, won or neither, so weighting items at random is one Dirichlet draw over three
    counts. Half an item is added to the lost and to the won, and one to the rest (A. Agresti and
    Y. Min 2005), so that a small sample without flips is not taken for proof that there are none.
    """
    rng = np.random.default_rng(SEED)
    shares = rng.dirichlet([lost + 0.5, won + 0.5, total - lost - won + 1.0], DRAWS)
    return _quantiles(shares[:, 0] - shares[:, 1])


def _detectable(lost: int, won: int, total: int) -> float:
    """From the normal approximation of the paired difference; at least one item is taken to flip."""
    flipping = max(lost + won, 1) / total
    return min(1.0, (Z + Z_POWER) * math.sqrt(flipping / total))


def mean_interval(sums: Sequence[float], counts: Sequence[int]) -> Interval:
    """Bootstrap interval of sum(sums) / sum(counts), drawing whole items: an item's tokens hang together."""
    rng = np.random.default_rng(SEED)
    values, weights = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    means = []
    for _ in range(10):  # in parts, so that drawing from many items needs little memory
        drawn = rng.integers(0, len(values), (MEAN_DRAWS // 10, len(values)))
        means.append(values[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    return _quantiles(np.concatenate(means))


def _quantiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(low=float(low), high=float(high))


Verdict = Literal["pass", "fail", "unclear"]


def below(interval: Interval, limit: float) -> Verdict:
    """Is the true value at most the limit? Unclear where the interval holds values on both sides."""
    if interval.high <= limit:
        return "pass"
    return "fail" if interval.low > limit else "unclear"


def above(interval: Interval, limit: float) -> Verdict:
    if interval.low >= limit:
        return "pass"
    return "fail" if interval.high < limit else "unclear"
