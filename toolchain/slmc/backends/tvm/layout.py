"""Quantized matrices as the kernels read them, with the way back.

A block of 8 rows and 32 columns is as many vectors of 32 bytes as a code has bits. Byte `c * 4 + j` of
vector `v` belongs to row c. At 4 bits its low nibble is column 4v + j, its high nibble column 16 + 4v + j,
each a code plus 8; at 8 bits it is column 4v + j, a code plus 128. So one broadcast of four activations
meets eight output channels in one instruction. The bytes of a row of blocks follow each other:

    codes    uint8     [rows / 8, columns / 32, 32 * bits]
    scales   bfloat16  [rows / 8, columns / group, 8]

bfloat16 holds our scales exactly, whatever their size, and widens to float32 by a shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from slmc.names import Bits

Codes = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]
PackedCodes = npt.NDArray[np.uint8]
PackedScales = npt.NDArray[np.generic]
"""ml_dtypes.bfloat16, which numpy's types can't name."""

LANES = 8
"""Rows of a block."""
BLOCK = 32
"""Columns of a block."""
HEAD_DIM_STEP = 16
"""What a head's elements are a multiple of: attention sums values by so many."""
VECTOR = 32
"""Bytes of a vector."""
ROWS_MULTIPLE = 32
"""Rows that a matrix is padded to: the kernels' blocks, and each tensor's 64-byte alignment in the file."""


def padded_rows(rows: int) -> int:
    return -(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE


@dataclass(frozen=True)
class Shape:
    """Of a packed matrix."""

    rows: int
    """Padded."""
    columns: int
    group: int
    """Columns that share a scale."""
    bits: Bits
    """Of a code."""

    @property
    def codes(self) -> tuple[int, int, int]:
        return self.rows // LANES, self.columns // BLOCK, VECTOR * self.bits

    @property
    def scales(self) -> tuple[int, int, int]:
        return self.rows // LANES, self.columns // self.group, LANES


def pack_codes(codes: Codes, bits: Bits) -> PackedCodes:
    """int8 [rows, columns] within that many signed bits to uint8 [rows / 8, columns / 32, 32 * bits]."""
    rows, columns = codes.shape
    if rows % LANES or columns % BLOCK:
        raise ValueError(f"{codes.shape} is not made of blocks of {LANES} x {BLOCK}")
    zero = 1 << bits - 1
    if codes.min(initial=0) < -zero or codes.max(initial=0) >= zero:
        raise ValueError(f"a code outside [{-zero}, {zero - 1}]")
    unsigned = codes.view(np.uint8) + np.uint8(zero)
    parts = unsigned.reshape(rows // LANES, LANES, columns // BLOCK, 8 // bits, bits, 4)
    # [block row, channel, block column, part of a byte, v, j] to [part, block row, block column, v, channel, j]
    parts = parts.transpose(3, 0, 2, 4, 1, 5)
    packed: PackedCodes = parts[0] | parts[1] << 4 if bits == 4 else parts[0]
    return packed.reshape(rows // LANES, columns // BLOCK, VECTOR * bits)


def unpack_codes(packed: PackedCodes) -> Codes:
    """The inverse of `pack_codes`."""
    block_rows, block_columns, size = packed.shape
    bits = size // VECTOR
    parts = np.stack([packed & 15, packed >> 4] if bits == 4 else [packed])
    parts = parts.reshape(8 // bits, block_rows, block_columns, bits, LANES, 4)
    unsigned = parts.transpose(1, 4, 2, 0, 3, 5).reshape(block_rows * LANES, block_columns * BLOCK)
    return (unsigned - np.uint8(1 << bits - 1)).view(np.int8)


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
