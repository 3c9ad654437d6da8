from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from slmc.names import Bits
from slmc.quant.packing import pack, unpack

widths: st.SearchStrategy[Bits] = st.sampled_from([4, 8])


@st.composite
def packable(draw: st.DrawFn) -> tuple[np.ndarray, Bits]:
    bits = draw(widths)
    shape = draw(st.integers(0, 9)), 32 // bits * draw(st.integers(0, 9))
    half = 1 << (bits - 1)
    return draw(npst.arrays(np.int8, shape, elements=st.integers(-half, half - 1))), bits


@given(packable())
def test_every_code_is_in_its_place(case: tuple[np.ndarray, Bits]) -> None:
    """Against the format's definition in Python integers: column k in word k div (32 / bits), lowest first."""
    values, bits = case
    per_word, half = 32 // bits, 1 << (bits - 1)
    words = [
        [
            sum((int(row[per_word * word + k]) + half) << (bits * k) for k in range(per_word))
            for word in range(values.shape[1] // per_word)
        ]
        for row in values
    ]
    wanted = np.array(words, np.uint32).reshape(values.shape[0], values.shape[1] // per_word)
    packed = pack(values, bits)
    assert packed.dtype == np.int32
    assert np.array_equal(packed.view(np.uint32), wanted)
    assert np.array_equal(unpack(packed, bits), values)


@given(npst.arrays(np.int32, st.tuples(st.integers(0, 5), st.integers(0, 5))), widths)
def test_any_words_come_back(words: np.ndarray, bits: Bits) -> None:
    assert np.array_equal(pack(unpack(words, bits), bits), words)


@pytest.mark.parametrize("bits", [4, 8])
def test_views_that_are_not_contiguous(bits: Bits) -> None:
    values = np.arange(-8, 8, dtype=np.int8).repeat(4).reshape(8, 8)
    assert np.array_equal(pack(values.T, bits), pack(values.T.copy(), bits))
    assert np.array_equal(pack(values[::2], bits), pack(values, bits)[::2])
    assert np.array_equal(unpack(pack(values, bits)[::2], bits), values[::2])


def test_packing_leaves_the_codes_alone() -> None:
    values = np.arange(-8, 8, dtype=np.int8).reshape(2, 8)
    before = values.copy()
    pack(values, 8)
    assert np.array_equal(values, before)


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (np.zeros((2, 7), np.int8), 4),
        (np.zeros((2, 6), np.int8), 8),
        (np.zeros(8, np.int8), 4),
        (np.zeros((2, 2, 8), np.int8), 4),
        (np.zeros((2, 8), np.uint8), 8),
        (np.zeros((2, 8), np.int32), 4),
        (np.full((1, 8), 8, np.int8), 4),
        (np.full((1, 8), -9, np.int8), 4),
    ],
)
def test_what_cannot_be_packed(values: np.ndarray, bits: Bits) -> None:
    with pytest.raises(ValueError, match=r"is not int8|outside"):
        pack(values, bits)


@pytest.mark.parametrize("words", [np.zeros((2, 2), np.uint32), np.zeros(2, np.int32), np.zeros((1, 1, 1), np.int32)])
def test_what_cannot_be_unpacked(words: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is not int32"):
        unpack(words, 4)
