"""Quantized matrices as the kernels read them, with the way back.

A block of 8 rows and 32 columns is 128 bytes, four vectors of 32. Byte `c * 4 + j` of vector `v` belongs
to row c: its low nibble is column 4v + j, its high nibble column 16 + 4v + j, each a code plus 8. So one
broadcast of four activations meets eight output channels in one instruction. The bytes of a row of blocks
follow each other:

    codes    uint8     [rows / 8, columns / 32, 128]
    scales   bfloat16  [rows / 8, columns / group, 8]

bfloat16 holds our scales exactly, whatever their size, and widens to float32 by a shift.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]
PackedCodes = npt.NDArray[np.uint8]
PackedScales = npt.NDArray[np.generic]
"""ml_dtypes.bfloat16, which numpy's types can't name."""

LANES = 8
"""Rows of a block."""
BLOCK = 32
"""Columns of a block."""
BLOCK_BYTES = 128
ROWS_MULTIPLE = 32
"""Rows that a matrix is padded to: the kernels' blocks, and each tensor's 64-byte alignment in the file."""


def padded_rows(rows: int) -> int:
    return -(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE


def pack_codes(codes: Codes) -> PackedCodes:
    """int8 [rows, columns] in [-8, 7] to uint8 [rows / 8, columns / 32, 128]."""
    rows, columns = codes.shape
    if rows % LANES or columns % BLOCK:
        raise ValueError(f"{codes.shape} is not made of blocks of {LANES} x {BLOCK}")
    if codes.min(initial=0) < -8 or codes.max(initial=0) > 7:
        raise ValueError("a code outside [-8, 7]")
    nibbles = (codes + np.int8(8)).view(np.uint8).reshape(rows // LANES, LANES, columns // BLOCK, 2, 4, 4)
    # [block row, channel, block column, half, v, j] to [half, block row, block column, v, channel, j]
    low, high = nibbles.transpose(3, 0, 2, 4, 1, 5)
    packed: PackedCodes = low | high << 4
    return packed.reshape(rows // LANES, columns // BLOCK, BLOCK_BYTES)


def unpack_codes(packed: PackedCodes) -> Codes:
    """The inverse of `pack_codes`."""
    block_rows, block_columns, _ = packed.shape
    nibbles = np.stack([packed & 15, packed >> 4]).reshape(2, block_rows, block_columns, 4, LANES, 4)
    codes = nibbles.transpose(1, 4, 2, 0, 3, 5).reshape(block_rows * LANES, block_columns * BLOCK)
    return codes.view(np.int8) - np.int8(8)


def pack_scales(scales: Float32) -> PackedScales:
    """float32 [rows, groups], each a bfloat16, to bfloat16 [rows / 8, groups, 8]."""
    rows, groups = scales.shape
    if rows % LANES:
        raise ValueError(f"{rows} rows are not made of blocks of {LANES}")
    narrow = scales.astype(ml_dtypes.bfloat16)
    if not np.array_equal(narrow.astype(np.float32), scales):
        raise ValueError("a scale that bfloat16 can't hold")
    return np.ascontiguousarray(narrow.reshape(rows // LANES, LANES, groups).transpose(0, 2, 1))


def unpack_scales(packed: PackedScales) -> Float32:
    """The inverse of `pack_scales`."""
    block_rows, groups, _ = packed.shape
    return packed.astype(np.float32).transpose(0, 2, 1).reshape(block_rows * LANES, groups)
