"""Element types of ML programs, and how they lie in a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slmc.errors import did_you_mean

Array = NDArray[np.generic]


@dataclass(frozen=True)
class DType:
    name: str
    """As `cast` calls it."""
    bits: int
    """Of one element in a file."""
    blob: int
    """Its number in a blob's header; 0 where it is never in a blob."""
    decoded: type[np.generic]
    """In numpy. Types of fewer than eight bits have a byte an element."""

    @property
    def floats(self) -> bool:
        return self.name in ("fp16", "fp32")


def _whole(name: str, blob: int, decoded: type[np.generic]) -> DType:
    return DType(name, np.dtype(decoded).itemsize * 8, blob, decoded)


def _part(bits: int, blob: int) -> DType:
    """Without sign and less than a byte."""
    return DType(f"uint{bits}", bits, blob, np.uint8)


STRING = DType("string", 0, 0, np.str_)
DTYPES = {
    "BOOL": _whole("bool", 0, np.bool_),
    "STRING": STRING,
    "FLOAT16": _whole("fp16", 1, np.float16),
    "FLOAT32": _whole("fp32", 2, np.float32),
    "INT8": _whole("int8", 4, np.int8),
    "INT16": _whole("int16", 6, np.int16),
    "INT32": _whole("int32", 14, np.int32),
    "INT64": _whole("int64", 0, np.int64),
    "UINT8": _whole("uint8", 3, np.uint8),
    "UINT16": _whole("uint16", 7, np.uint16),
    "UINT32": _whole("uint32", 15, np.uint32),
    "INT4": DType("int4", 4, 8, np.int8),
    "UINT1": _part(1, 9),
    "UINT2": _part(2, 10),
    "UINT3": _part(3, 12),
    "UINT4": _part(4, 11),
    "UINT6": _part(6, 13),
}
"""By their names in MIL.proto. The numbers in blobs are MILBlob's BlobDataType."""
_NAMED = {dtype.name: dtype for dtype in DTYPES.values()}


def named(name: str) -> DType:
    """The type that a program's text calls so. Raises ValueError for another."""
    if name not in _NAMED:
        raise ValueError(f"no type {name!r}; {did_you_mean(name, _NAMED)}")
    return _NAMED[name]


def unpack(octets: NDArray[np.uint8], dtype: DType, count: int) -> Array:
    """The first `count` elements of a type, as its `decoded` type, from bytes uint8 [at least count * bits / 8].

    Elements of fewer than eight bits follow each other without gaps, lowest bits first.
    """
    if dtype.bits >= 8:
        return octets[: count * dtype.bits // 8].view(dtype.decoded)
    if dtype.bits == 4:  # shifts of signed integers keep the sign
        codes = np.empty(len(octets) * 2, dtype.decoded)
        np.right_shift((octets << 4).view(dtype.decoded), 4, out=codes[0::2])
        np.right_shift(octets.view(dtype.decoded), 4, out=codes[1::2])
        return codes[:count]
    bits = np.unpackbits(octets, count=count * dtype.bits, bitorder="little").reshape(count, dtype.bits)
    return np.packbits(bits, axis=1, bitorder="little")[:, 0]
