"""Constants of a program: written where they are used, or in a file of blobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from slmc.mil.blobs import BlobFile
from slmc.mil.dtypes import STRING, Array, DType, unpack

Shape = tuple[int, ...]
_FIELDS = {"floats": "f", "doubles": "f", "ints": "iu", "longInts": "iu", "bools": "b"}
"""Where an immediate tensor's elements are, and the kinds of numpy's types that may be there."""


@dataclass(frozen=True, eq=False)
class Constant:
    """Raises RunnerError or ValueError where what is stored is not of its type and shape."""

    dtype: DType
    shape: Shape
    key: bytes
    """The same for the same value of one package."""
    message: Any
    """The protobuf `Value`."""
    blobs: BlobFile | None
    """Where it lies, unless it is in the message."""

    def check(self) -> None:
        """Raise where it can't be read; data in a blob is left alone."""
        if self.blobs is None:
            self.text() if self.dtype is STRING else self.array()
        else:
            self.blobs.find(self.message.blobFileValue.offset, self.dtype, self.shape)

    def array(self) -> Array:
        """Of the dtype's `decoded` type, in its shape."""
        if self.blobs is not None:
            return self.blobs.read(self.message.blobFileValue.offset, self.dtype, self.shape)
        count, tensor = math.prod(self.shape), self.message.immediateValue.tensor
        field = tensor.WhichOneof("value")
        if field == "bytes":
            octets = np.frombuffer(bytearray(tensor.bytes.values), np.uint8)
            if len(octets) != -(-count * self.dtype.bits // 8):
                raise ValueError(f"{len(octets)} bytes for {self.dtype.name} {self.shape}")
            return unpack(octets, self.dtype, count).reshape(self.shape)
        found = [] if field is None else getattr(tensor, field).values
        if len(found) != count or (count and np.dtype(self.dtype.decoded).kind not in _FIELDS.get(field, "")):
            raise ValueError(f"{len(found)} {field} for {self.dtype.name} {self.shape}")
        try:
            return np.array(found, self.dtype.decoded).reshape(self.shape)
        except OverflowError:
            raise ValueError(f"values beyond {self.dtype.name}") from None

    def text(self) -> str:
        """The string that it is."""
        found = self.message.immediateValue.tensor.strings.values
        if self.dtype is not STRING or self.shape or len(found) != 1:
            raise ValueError(f"{self.dtype.name} {self.shape}, {len(found)} strings: not one string")
        return str(found[0])
