"""Against published values, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.validate.statistics import Interval, above, below, mcnemar, mean_interval, paired, proportion


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # R. G. Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: the score interval.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(count: int, total: int, low: float, high: float) -> None:
    found = proportion(count, total)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=5e-5)
    assert found.share == count / total


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_an_interval_holds_its_share(counts: tuple[int, int]) -> None:
    found = proportion(*counts)
    assert 0 <= found.interval.low <= found.share <= found.interval.high <= 1


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 0.0625),
        (6, 16, 0.0525),
        (10, 2, 0.03857),
        (59, 21, 2.529e-05),
        (2000, 2000, 1.0),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == pytest.approx(p, rel=2e-3)
    assert mcnemar(won, lost) == mcnemar(lost, won)


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_is_the_share_of_splits_as_uneven(lost: int, won: int) -> None:
    flips = lost + won
    uneven = abs(lost - won)
    as_uneven = sum(math.comb(flips, k) for k in range(flips + 1) if abs(2 * k - flips) >= uneven)
    assert mcnemar(lost, won) == pytest.approx(as_uneven / 2**flips)


@pytest.mark.parametrize(("lose", "win", "total"), [(0.02, 0.01, 1000), (0.002, 0.002, 2000), (0.1, 0.0, 200)])
def test_the_drops_interval_holds_the_truth_as_often_as_it_says(lose: float, win: float, total: int) -> None:
    rng = np.random.default_rng(1)
    tries, held = 300, 0
    for lost, won, _ in rng.multinomial(total, [lose, win, 1 - lose - win], tries):
        interval = paired(int(lost), int(won), 0, total).interval
        held += interval.low <= lose - win <= interval.high
    assert 0.92 <= held / tries <= 0.99


def test_a_drop_that_is_called_detectable_is_mostly_seen() -> None:
    """80% of samples with the detectable drop, and the same share of flips, have an interval above zero."""
    total, flipping = 2000, 0.04
    drop = paired(round(total * flipping / 2), round(total * flipping / 2), 0, total).detectable
    rng = np.random.default_rng(2)
    lose, win = (flipping + drop) / 2, (flipping - drop) / 2
    counts = rng.multinomial(total, [lose, win, 1 - flipping], 300)
    seen = sum(paired(int(lost), int(won), 0, total).interval.low > 0 for lost, won, _ in counts)
    assert 0.73 <= seen / 300 <= 0.87


def test_a_small_sample_without_a_flip_is_no_proof() -> None:
    assert paired(0, 0, 0, 20).interval.high > 0.05
    assert paired(0, 0, 0, 5000).interval.high < 0.001
    assert paired(0, 0, 0, 20).detectable > paired(0, 0, 0, 5000).detectable > 0


def test_the_same_counts_give_the_same_interval() -> None:
    assert paired(12, 5, 3, 4500) == paired(12, 5, 3, 4500)


def test_the_means_interval_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(3)
    counts = [3] * 500
    sums = list(rng.exponential(0.3, 500))
    found = mean_interval(sums, counts)
    mean, error = np.mean(sums) / 3, np.std(sums) / 3 / math.sqrt(500)
    assert (found.low, found.high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), rel=0.03)


def test_items_that_hang_together_widen_the_means_interval() -> None:
    rng = np.random.default_rng(4)
    values = rng.exponential(1, 100)
    alone = mean_interval(list(np.repeat(values, 10)), [1] * 1000)
    together = mean_interval(list(values * 10), [10] * 100)
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("low", "high", "is_below", "is_above"),
    [
        (0.0, 0.1, "pass", "fail"),
        (0.3, 0.4, "fail", "pass"),
        (0.1, 0.3, "unclear", "unclear"),
        (0.1, 0.2, "pass", "unclear"),
        (0.2, 0.3, "unclear", "pass"),
    ],
)
def test_verdicts(low: float, high: float, is_below: str, is_above: str) -> None:
    interval = Interval(low=low, high=high)
    assert (below(interval, 0.2), above(interval, 0.2)) == (is_below, is_above)
