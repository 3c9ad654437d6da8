"""Exact k-means on a line, against all ways to cut it and against Lloyd's iterations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.backends.coreml.palettes import palette

numbers = st.lists(st.integers(-20, 20), min_size=1, max_size=9)


def error(values: np.ndarray, size: int) -> float:
    centres, places = palette(values.astype(np.float32), size)
    return float(np.square(values - centres[places]).sum())


@given(numbers, st.integers(1, 4))
def test_no_cut_is_better(given_: list[int], size: int) -> None:
    values = np.sort(np.array(given_, np.float64))
    runs = min(size, len(values))
    cuts = ((0, *cut, len(values)) for cut in combinations(range(1, len(values)), runs - 1))
    least = min(
        sum(np.square(part - part.mean()).sum() for part in map(lambda a, b: values[a:b], cut, cut[1:])) for cut in cuts
    )
    assert error(values, size) == pytest.approx(least, abs=1e-4)


def test_lloyd_does_not_beat_it() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(5000).astype(np.float32)
    centres = np.quantile(values, (np.arange(16) + 0.5) / 16)
    for _ in range(200):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == i].mean() for i in range(16)])
    lloyd = np.square(values - centres[np.abs(values[:, None] - centres).argmin(1)]).sum()
    assert error(values, 16) <= lloyd * (1 + 1e-6)


def test_few_values_are_kept_as_they_are() -> None:
    values = np.array([[1, 2], [2, -3]], np.float32)
    centres, places = palette(values, 16)
    assert centres.shape == (16,)
    assert np.array_equal(centres[places], values)


def test_each_value_has_its_nearest_centre() -> None:
    values = np.random.default_rng(1).standard_normal((40, 50)).astype(np.float32)
    centres, places = palette(values, 16)
    assert np.all(np.diff(centres) > 0)
    assert np.array_equal(np.abs(values[..., None] - centres).argmin(-1), places)
