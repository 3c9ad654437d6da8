from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import SCHEMES, Scheme, dequantize

G32, WIDE = SCHEMES["int4-g32"], SCHEMES["int8-g32"]
by_name = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
by_width = pytest.mark.parametrize("scheme", [G32, WIDE], ids=lambda scheme: scheme.name)


def bf16(values: np.ndarray) -> np.ndarray:
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def squared_errors(weights: np.ndarray, codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Of each group, [groups]."""
    error = weights.astype(np.float64) - dequantize(codes, scales)
    return np.square(error).reshape(scales.size, -1).sum(axis=1)


def plain(weights: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Error of each group with the usual scale: the largest magnitude over the highest code."""
    groups = weights.reshape(-1, scheme.group_size).astype(np.float64)
    scales = bf16(np.abs(groups).max(axis=1, keepdims=True) / scheme.highest)
    scales[scales == 0] = 1
    return rounding_errors(groups, scales, scheme)


def exhaustive(weights: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Least error of each group over a fine grid of scales."""
    groups = weights.reshape(-1, scheme.group_size).astype(np.float64)
    largest = np.abs(groups).max(axis=1, keepdims=True)
    clips = np.linspace(0.65, 2.0, 500) * -scheme.lowest
    return np.minimum.reduce([rounding_errors(groups, bf16(largest / clip), scheme) for clip in clips])


def rounding_errors(groups: np.ndarray, scales: np.ndarray, scheme: Scheme) -> np.ndarray:
    codes = np.clip(np.rint(groups / scales), scheme.lowest, scheme.highest)
    return np.square(groups - codes * scales).sum(axis=1)


finite = st.floats(-(2.0**120), 2.0**120, width=32)
blocks = st.tuples(st.integers(1, 3), st.integers(1, 3)).flatmap(
    lambda shape: npst.arrays(np.float32, (shape[0], 32 * shape[1]), elements=finite)
)


@by_width
@given(weights=blocks)
def test_the_contract_holds_for_any_weights(scheme: Scheme, weights: np.ndarray) -> None:
    codes, scales = quantize_rows(weights, scheme)
    assert codes.shape == weights.shape
    assert codes.dtype == np.int8
    assert codes.min() >= scheme.lowest
    assert codes.max() <= scheme.highest
    assert scales.shape == (weights.shape[0], weights.shape[1] // 32)
    assert scales.dtype == np.float32
    assert (scales > 0).all()
    assert np.isfinite(scales).all()
    assert np.array_equal(scales, bf16(scales))


@given(blocks)
def test_weights_are_left_as_they_are(weights: np.ndarray) -> None:
    before = weights.copy()
    quantize_rows(weights, G32)
    assert np.array_equal(weights, before)


@by_width
@given(weights=blocks)
def test_codes_are_the_nearest_to_the_weights(scheme: Scheme, weights: np.ndarray) -> None:
    codes, scales = quantize_rows(weights, scheme)
    exact = weights.astype(np.float64).reshape(*scales.shape, 32) / scales[:, :, None].astype(np.float64)
    distance = np.abs(np.clip(exact, scheme.lowest, scheme.highest) - codes.reshape(exact.shape))
    assert distance.max() <= 0.5 + 1e-5 * (scheme.highest / 7)


@by_name
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform"])
def test_the_error_is_near_the_least_possible(scheme: Scheme, kind: str) -> None:
    random = np.random.default_rng(1)
    weights = getattr(random, kind)(size=(64, 512)).astype(np.float32) * 0.02
    codes, scales = quantize_rows(weights, scheme)
    error = squared_errors(weights, codes, scales).sum()
    assert error <= (1.02 if scheme.bits == 4 else 1.15) * exhaustive(weights, scheme).sum()
    assert error <= (0.9 if scheme.bits == 4 else 0.95) * plain(weights, scheme).sum() or kind == "uniform"


@by_width
@given(seed=st.integers(0, 2**32 - 1))
def test_no_group_is_much_worse_than_with_the_plain_scale(scheme: Scheme, seed: int) -> None:
    weights = np.random.default_rng(seed).standard_t(3, size=(8, 96)).astype(np.float32)
    codes, scales = quantize_rows(weights, scheme)
    assert squared_errors(weights, codes, scales).sum() <= plain(weights, scheme).sum()
    if scheme.bits == 4:  # a bf16 that fits by chance decides more than clipping does with 8
        assert (squared_errors(weights, codes, scales) <= plain(weights, scheme) * 1.01 + 1e-12).all()


@pytest.mark.parametrize("extreme", [-1.0, 1.0])
def test_both_ends_of_the_codes_are_used(extreme: float) -> None:
    """-8 for a negative extreme, 7 for a positive one."""
    weights = np.linspace(-0.8, 0.7, 32, dtype=np.float32)[None]
    weights[0, 5] = extreme
    codes, _ = quantize_rows(weights, G32)
    assert codes[0, 5] == (-8 if extreme < 0 else 7)


@by_width
def test_weights_on_the_grid_come_back_exactly(scheme: Scheme) -> None:
    random = np.random.default_rng(2)
    codes = random.integers(scheme.lowest, scheme.highest + 1, size=(40, 256), dtype=np.int8)
    codes.reshape(-1, 32)[:, 7] = scheme.lowest
    scales = bf16(random.uniform(1e-4, 1e-1, size=(40, 8)).astype(np.float32))
    found_codes, found_scales = quantize_rows(dequantize(codes, scales), scheme)
    assert np.array_equal(found_codes, codes)
    assert np.array_equal(found_scales, scales)


def test_zeros_get_scale_one() -> None:
    weights = np.zeros((2, 64), np.float32)
    weights[1, 40] = -0.5
    codes, scales = quantize_rows(weights, G32)
    assert not codes[0].any()
    assert scales[0].tolist() == [1, 1]
    assert scales[1, 0] == 1
    assert codes[1, 40] == -8


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e30, 3e38])
def test_weights_at_the_ends_of_float32(size: float) -> None:
    weights = np.full((1, 32), size, np.float32)
    weights[0, ::2] *= -1
    codes, scales = quantize_rows(weights, G32)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    if size > 1e-30:
        assert np.allclose(dequantize(codes, scales), weights, rtol=0.08)


@by_name
def test_blocks_do_not_change_the_result(scheme: Scheme) -> None:
    weights = np.random.default_rng(3).standard_normal((300, 1024), dtype=np.float32)
    codes, scales = quantize_rows(weights, scheme)
    for row in (0, 131, 299):
        one_codes, one_scales = quantize_rows(weights[row : row + 1], scheme)
        assert np.array_equal(one_codes[0], codes[row])
        assert np.array_equal(one_scales[0], scales[row])


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.zeros((2, 33), np.float32), "is not float32"),
        (np.zeros((2, 32)), "is not float32"),
        (np.full((2, 32), np.nan, np.float32), "not finite"),
        (np.full((2, 32), -np.inf, np.float32), "not finite"),
    ],
)
def test_what_cannot_be_quantized(weights: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        quantize_rows(weights, G32)
