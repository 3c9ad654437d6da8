from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.backends.tvm.layout import pack_codes, pack_scales, unpack_codes, unpack_scales
from slmc.names import Bits

blocks = st.integers(1, 5)


widths: st.SearchStrategy[Bits] = st.sampled_from([4, 8])


@given(blocks, blocks, widths, st.integers(0, 2**32 - 1))
def test_codes_come_back(block_rows: int, block_columns: int, bits: Bits, seed: int) -> None:
    zero = 1 << bits - 1
    codes = np.random.default_rng(seed).integers(-zero, zero, (8 * block_rows, 32 * block_columns), np.int8)
    packed = pack_codes(codes, bits)
    assert packed.shape == (block_rows, block_columns, 32 * bits)
    assert packed.nbytes == codes.size * bits // 8
    np.testing.assert_array_equal(unpack_codes(packed), codes)


@given(blocks, blocks, st.integers(0, 2**32 - 1))
def test_scales_come_back(block_rows: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    wide = np.exp2(random.uniform(-100, 100, (8 * block_rows, groups)))
    scales = wide.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(unpack_scales(pack_scales(scales)), scales)


def test_each_nibble_lies_where_the_layout_says() -> None:
    """Byte c * 4 + j of vector v: row c, low nibble column 4v + j, high nibble column 16 + 4v + j."""
    codes = np.random.default_rng(0).integers(-8, 8, (16, 64), np.int8)
    packed = pack_codes(codes, 4)
    for block_row, block_column, v, c, j in np.ndindex(2, 2, 4, 8, 4):
        byte = int(packed[block_row, block_column, 32 * v + 4 * c + j])
        row, column = 8 * block_row + c, 32 * block_column + 4 * v + j
        assert byte & 15 == codes[row, column] + 8
        assert byte >> 4 == codes[row, column + 16] + 8


def test_each_byte_lies_where_the_layout_says() -> None:
    """Byte c * 4 + j of vector v: row c, column 4v + j."""
    codes = np.random.default_rng(0).integers(-128, 128, (16, 64), np.int8)
    packed = pack_codes(codes, 8)
    for block_row, block_column, v, c, j in np.ndindex(2, 2, 8, 8, 4):
        byte = int(packed[block_row, block_column, 32 * v + 4 * c + j])
        assert byte - 128 == codes[8 * block_row + c, 32 * block_column + 4 * v + j]


@pytest.mark.parametrize("shape", [(7, 32), (8, 31), (12, 64)])
def test_what_is_not_made_of_blocks_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not made of blocks"):
        pack_codes(np.zeros(shape, np.int8), 4)


@pytest.mark.parametrize("code", [-9, 8])
def test_a_code_of_more_than_four_bits_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        pack_codes(np.full((8, 32), code, np.int8), 4)


def test_a_scale_that_would_be_rounded_is_refused() -> None:
    with pytest.raises(ValueError, match="can't hold"):
        pack_scales(np.full((8, 1), 1.001, np.float32))
