"""`weight.bin`: arrays, each under a header of its own (MILBlob's StorageFormat.hpp, version 2).

file      u32 count, u32 version, zeros to 64 bytes
header    u32 0xDEADBEEF, u32 type, u64 bytes of data, u64 where they lie, u64 bits of padding, zeros to 64 bytes
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmc.errors import RunnerError
from slmc.mil.dtypes import Array, DType, unpack

_ALIGNED = 64
_VERSION = 2
_MAGIC = 0xDEADBEEF
_TODO = "build or copy the package again"


class BlobFile:
    """Maps the file. Raises RunnerError where it is missing or no blob file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:  # pages are copied when written to, and nothing writes; torch wants arrays that could be
            self._octets = np.memmap(path, np.uint8, mode="c")
        except (OSError, ValueError) as error:
            raise RunnerError(f"can't map the weights: {error}", where=path, todo=_TODO) from None
        version = struct.unpack_from("<II", self._octets.data)[1] if len(self._octets) >= _ALIGNED else None
        if version != _VERSION:
            raise RunnerError("not a file of weights", where=path, expected=f"blob storage {_VERSION}", todo=_TODO)

    def find(self, offset: int, dtype: DType, shape: Sequence[int]) -> tuple[int, int]:
        """Where the array with its header at an offset begins and ends, in bytes.

        Raises RunnerError where the header is none, or not of such an array, or the data isn't all there.
        """
        where = f"{self.path}, byte {offset}"
        if offset % _ALIGNED or offset + _ALIGNED > len(self._octets):
            raise RunnerError(
                "no blob can begin here", where=where, expected=f"a file of {offset + _ALIGNED}", todo=_TODO
            )
        magic, kind, size, start, padding = struct.unpack_from("<IIQQQ", self._octets.data, offset)
        if magic != _MAGIC:
            raise RunnerError(
                f"a blob's header begins with {magic:#x}", where=where, expected=f"{_MAGIC:#x}", todo=_TODO
            )
        if kind != dtype.blob or not dtype.blob:
            raise RunnerError(f"a blob of type {kind}", where=where, expected=f"{dtype.blob}, {dtype.name}")
        wanted = math.prod(shape) * dtype.bits
        if size * 8 - padding != wanted or padding >= 8:
            raise RunnerError(
                f"a blob of {size} bytes", where=where, expected=f"{wanted} bits for {dtype.name} {shape}"
            )
        if start % _ALIGNED or start + size > len(self._octets):
            raise RunnerError(f"{size} bytes at {start} are not in the file", where=where, todo=_TODO)
        return start, start + size

    def read(self, offset: int, dtype: DType, shape: Sequence[int]) -> Array:
        """The array at an offset; a view of the file where elements are whole bytes. Raises as `find` does."""
        start, stop = self.find(offset, dtype, shape)
        return unpack(np.asarray(self._octets[start:stop]), dtype, math.prod(shape)).reshape(shape)
