"""Constants as the interpreter holds them, and operations that only unpack constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from slmc.mil.held import held
from slmc.mil.package import Package
from slmc.mil.values import Constant

Unpack = Callable[[Mapping[str, torch.Tensor], bool], torch.Tensor]
_AT_ONCE = 1 << 17
"""Elements."""


class Weights:
    """Tensors in their held types, each decoded once for all functions of a package."""

    _all: ClassVar[WeakKeyDictionary[Package, Weights]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._tensors: dict[Hashable, torch.Tensor] = {}
        self._no_numbers: set[Hashable] = set()

    @classmethod
    def of(cls, package: Package) -> Weights:
        """Those of a package, the same each time."""
        return cls._all.setdefault(package, cls())

    def get(self, key: Hashable, decode: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor of a key, decoded when it is first wanted."""
        if key not in self._tensors:
            found = self._tensors[key] = decode()
            # A sum is a number unless something in it is none, and takes no memory.
            if found.is_floating_point() and not math.isfinite(found.sum()) and found.isnan().any():
                self._no_numbers.add(key)
        return self._tensors[key]

    def has_nan(self, key: Hashable) -> bool:
        """Whether the tensor of a key, decoded before, holds a NaN."""
        return key in self._no_numbers


def tensor(constant: Constant) -> torch.Tensor:
    """A constant in its held type."""
    array = constant.array()
    if array.dtype in (np.uint16, np.uint32):
        array = array.astype(np.int32 if array.dtype == np.uint16 else np.int64)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(constant.shape)).to(held(constant.dtype))


def blockwise_shift_scale(given: Mapping[str, torch.Tensor], rounded: bool) -> torch.Tensor:
    """(data - offset) * scale, each scale and offset for a block of data; float32, rounded to float16 if so wanted.

    Raises ValueError where sizes of the data are no multiples of the scales'.
    """
    data, scale, offset = given["data"], given["scale"], given.get("offset")
    if offset is not None and offset.shape != scale.shape:
        raise ValueError(f"offsets {list(offset.shape)} with scales {list(scale.shape)}")
    blocks, one_each = _blocks(data.shape, scale.shape, "scales")
    found = torch.empty(data.shape)
    rows = max(1, _AT_ONCE * blocks[0] // max(1, data.numel()))  # so that what is computed on stays in the cache
    parts = [found.reshape(blocks), data.reshape(blocks), scale.reshape(one_each)]
    parts += [] if offset is None else [offset.reshape(one_each).float()]
    for out, codes, scales, *offsets in zip(*(torch.split(part, rows) for part in parts), strict=True):
        out.copy_(codes)
        for one in offsets:
            out -= one
        out *= scales
        if rounded:
            out.copy_(out.half())
    return found


def lut_to_dense(given: Mapping[str, torch.Tensor], rounded: bool) -> torch.Tensor:
    """Each index replaced by a value of its block's table, which is rounded already.

    Raises ValueError for tables of vectors, or that don't fit.
    """
    indices, lut = given["indices"], given["lut"]
    if lut.dim() != indices.dim() + 2 or lut.shape[-1] != 1:
        raise ValueError(f"tables {list(lut.shape)} for indices {list(indices.shape)}: only scalars are looked up")
    *tables, entries, _ = lut.shape
    if indices.numel() and int(indices.max()) >= entries:
        raise ValueError(f"an index beyond a table of {entries}")
    blocks, one_each = _blocks(indices.shape, tables, "tables")
    first = torch.arange(math.prod(tables), dtype=torch.int32).reshape(one_each) * entries
    places = indices.reshape(blocks).int() + first
    return lut.reshape(-1).index_select(0, places.reshape(-1)).reshape(indices.shape)


def _blocks(sizes: Sequence[int], counts: Sequence[int], what: str) -> tuple[list[int], list[int]]:
    """Shapes that put blocks beside each other: the data's [count, size / count, …], and [count, 1, …]."""
    if len(sizes) != len(counts) or any(not count or size % count for size, count in zip(sizes, counts, strict=True)):
        raise ValueError(f"{what} {list(counts)} do not divide {list(sizes)}")
    pairs = [(count, size // count) for size, count in zip(sizes, counts, strict=True)]
    return [size for pair in pairs for size in pair], [size for count, _ in pairs for size in (count, 1)]


UNPACKS: dict[str, tuple[Unpack, str, str]] = {
    "constexpr_blockwise_shift_scale": (blockwise_shift_scale, "data", "scale"),
    "constexpr_lut_to_dense": (lut_to_dense, "indices", "lut"),
}
"""By operation type, with two parameters that it needs; the second's type is the result's."""
