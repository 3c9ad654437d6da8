"""Spending a limit, against every choice there is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.quant.budget import Matrix, widened


def matrix(name: str, gain: float, weights: int = 100, bits: float = 4.5, wide: float = 8.5) -> Matrix:
    return Matrix((name,), weights, bits, wide, gain)


def names(matrices: Sequence[Matrix]) -> list[str]:
    return [name for matrix in matrices for name in matrix.names]


def gain(matrices: Sequence[Matrix]) -> float:
    return sum(matrix.gain for matrix in matrices)


def rate(one: Matrix) -> float:
    return one.gain / ((one.wide - one.bits) * one.weights)


def by_rate(matrices: Sequence[Matrix]) -> list[Matrix]:
    return sorted(matrices, key=rate, reverse=True)


def mean_bits(matrices: Sequence[Matrix], wide: Sequence[Matrix]) -> float:
    bits = sum((one.wide if one in wide else one.bits) * one.weights for one in matrices)
    return bits / sum(one.weights for one in matrices)


def choices(matrices: Sequence[Matrix], budget: float) -> Iterator[tuple[Matrix, ...]]:
    """Every set of matrices that may be widened."""
    for count in range(len(matrices) + 1):
        for chosen in itertools.combinations(matrices, count):
            if mean_bits(matrices, chosen) <= budget + 1e-9:
                yield chosen


def test_the_greatest_gain_a_bit_comes_first() -> None:
    """The largest gain of all costs most a bit."""
    matrices = [matrix("large", 3.0, weights=400), matrix("small", 1.0), matrix("smaller", 0.9)]
    assert names(widened(matrices, 5.84)) == ["small", "smaller"]
    assert names(widened(matrices, 5.82)) == ["small"]
    assert names(widened(matrices, 8.5)) == ["small", "smaller", "large"]


def test_what_does_not_fit_is_passed_over_for_what_does() -> None:
    matrices = [matrix("first", 9.0), matrix("too large", 10.0, weights=300), matrix("last", 0.1)]
    assert names(widened(matrices, 6.2)) == ["first", "last"]


def test_a_limit_is_kept_to_the_bit() -> None:
    matrices = [matrix("one", 1.0), matrix("other", 0.5)]
    assert names(widened(matrices, 6.5)) == ["one"]
    assert widened(matrices, 6.49) == []
    assert widened(matrices, 4.5) == []
    assert widened(matrices, 4.0) == []  # a limit that was broken before
    assert widened([], 8.5) == []


@pytest.mark.parametrize("useless", [0.0, -1.0])
def test_what_gains_nothing_is_left(useless: float) -> None:
    matrices = [matrix("useless", useless), matrix("useful", 1e-9)]
    assert names(widened(matrices, 8.5)) == ["useful"]


def test_what_is_wide_already_is_left_and_counts() -> None:
    """A matrix that the recipe gives 8 bits takes its part of the limit, whatever wider codes would be said to gain."""
    matrices = [matrix("wide", 5.0, bits=8.5), matrix("narrow", 0.1)]
    assert names(widened(matrices, 8.5)) == ["narrow"]
    assert widened(matrices, 6.5) == []
    assert widened(matrices, 8.4) == []


def test_tensors_that_share_their_bits_go_together() -> None:
    fused = Matrix(("q", "k", "v"), 300, 4.5, 8.5, 2.0)
    assert names(widened([fused, matrix("o", 0.5)], 7.5)) == ["q", "k", "v"]
    assert names(widened([fused, matrix("o", 0.5)], 5.5)) == ["o"]


some = st.builds(
    Matrix,
    names=st.uuids().map(lambda one: (str(one),)),
    weights=st.integers(1, 50).map(lambda count: 32 * count),
    bits=st.sampled_from([4.5, 4.5, 4.25, 8.5]),
    wide=st.just(8.5),
    gain=st.one_of(st.integers(0, 20).map(float), st.floats(-1, 1)),
)


@given(matrices=st.lists(some, min_size=1, max_size=7), budget=st.floats(4.25, 8.5))
def test_the_limit_is_kept_and_near_the_best_choice(matrices: list[Matrix], budget: float) -> None:
    """Until something does not fit no bits can be spent better, and what was left of the limit then could buy at
    most the gain a bit of that: so much more can the best of all choices have (Dantzig's bound).
    """
    found = widened(matrices, budget)
    assert not found or mean_bits(matrices, found) <= budget + 1e-9
    useful = [one for one in matrices if one.gain > 0 and one.bits < one.wide]
    assert all(one in useful for one in found)
    left = (budget - mean_bits(matrices, ())) * sum(one.weights for one in matrices)
    if left < 0:
        assert not found
        return
    best = max(gain(chosen) for chosen in choices(matrices, budget) if all(one in useful for one in chosen))
    first_passed = next((one for one in by_rate(useful) if one not in found), None)
    if first_passed is None:
        assert gain(found) == pytest.approx(best)
        return
    before = list(itertools.takewhile(lambda one: one is not first_passed, by_rate(useful)))
    left -= sum((one.wide - one.bits) * one.weights for one in before)
    assert best <= gain(before) + rate(first_passed) * left + 1e-6
    assert gain(found) >= gain(before)


@given(matrices=st.lists(some, min_size=1, max_size=7), budget=st.floats(4.25, 8.5))
def test_nothing_that_would_help_still_fits(matrices: list[Matrix], budget: float) -> None:
    found = widened(matrices, budget)
    for one in matrices:
        if one not in found and one.gain > 0 and one.bits < one.wide:
            assert mean_bits(matrices, [*found, one]) > budget - 1e-9


@given(st.lists(some, min_size=1, max_size=7))
def test_a_limit_that_limits_nothing(matrices: list[Matrix]) -> None:
    useful = {one.names for one in matrices if one.gain > 0 and one.bits < one.wide}
    assert {one.names for one in widened(matrices, 8.5)} == useful


def test_never_worse_than_the_best_single_choice() -> None:
    matrices = [matrix("dense", 2.0, weights=10), matrix("great", 19.0, weights=100), matrix("poor", 0.9, weights=90)]
    assert gain(widened(matrices, 6.5)) >= 19.0
