from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from slmc.quant.packing import pack, unpack

shapes = st.tuples(st.integers(0, 9), st.integers(0, 9).map(lambda words: 8 * words))
codes = shapes.flatmap(lambda shape: npst.arrays(np.int8, shape, elements=st.integers(-8, 7)))


@given(codes)
def test_every_nibble_is_in_its_place(values: np.ndarray) -> None:
    """Against the format's definition in Python integers: column k in bits 4·(k mod 8) of word k div 8."""
    words = [
        [sum((int(row[8 * word + k]) + 8) << (4 * k) for k in range(8)) for word in range(values.shape[1] // 8)]
        for row in values
    ]
    wanted = np.array(words, np.uint32).reshape(values.shape[0], values.shape[1] // 8)
    packed = pack(values)
    assert packed.dtype == np.int32
    assert np.array_equal(packed.view(np.uint32), wanted)
    assert np.array_equal(unpack(packed), values)


@given(npst.arrays(np.int32, st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_any_words_come_back(words: np.ndarray) -> None:
    assert np.array_equal(pack(unpack(words)), words)


def test_views_that_are_not_contiguous() -> None:
    values = np.arange(-8, 8, dtype=np.int8).repeat(4).reshape(8, 8)
    assert np.array_equal(pack(values.T), pack(values.T.copy()))
    assert np.array_equal(pack(values[::2]), pack(values)[::2])
    assert np.array_equal(unpack(pack(values)[::2]), values[::2])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 7), np.int8),
        np.zeros(8, np.int8),
        np.zeros((2, 2, 8), np.int8),
        np.zeros((2, 8), np.uint8),
        np.zeros((2, 8), np.int32),
        np.full((1, 8), 8, np.int8),
        np.full((1, 8), -9, np.int8),
    ],
)
def test_what_cannot_be_packed(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"is not int8|outside"):
        pack(values)


@pytest.mark.parametrize("words", [np.zeros((2, 2), np.uint32), np.zeros(2, np.int32), np.zeros((1, 1, 1), np.int32)])
def test_what_cannot_be_unpacked(words: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is not int32"):
        unpack(words)
