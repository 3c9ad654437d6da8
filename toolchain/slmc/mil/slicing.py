"""Slices as numpy has them, with masks: what `slice_by_index` reads and `slice_update` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slmc.mil.node import Kernel, Node, Values

Index = tuple[slice | int, ...]


def by_index(node: Node) -> Kernel:
    x, index = node.slot("x"), _index(node)
    return lambda values: take(values[x], index(values))


def by_size(node: Node) -> Kernel:
    """Sizes of -1 reach to the end."""
    x, begin, size = node.slot("x"), node.integers("begin"), node.integers("size")

    def kernel(values: Values) -> Tensor:
        found, pairs = values[x], list(zip(begin(values), size(values), strict=True))
        for dimension, (first, count) in enumerate(pairs):  # narrow refuses what is outside
            found = found.narrow(dimension, first, found.shape[dimension] - first if count == -1 else count)
        return found

    return kernel


def update(node: Node, in_place: bool) -> Kernel:
    """`x` with a slice replaced: a copy, or `x` itself."""
    if any(stride < 0 for stride in node.constants("stride") or []):
        raise ValueError("an update with a negative stride, which is not done")
    x, new, index = node.slot("x"), node.slot("update"), _index(node)

    def kernel(values: Values) -> Tensor:
        found = values[x] if in_place else values[x].clone()
        part = take(found, index(values))
        if part.shape != values[new].shape:
            raise ValueError(f"an update {list(values[new].shape)} for a slice {list(part.shape)}")
        part.copy_(values[new])
        return found

    return kernel


def take(x: Tensor, index: Index) -> Tensor:
    """A view, unless a stride is negative."""
    for dimension, one in enumerate(index):
        if isinstance(one, slice) and one.step is not None and one.step < 0:  # torch has none such
            places = range(x.shape[dimension])[one]
            x = x.index_select(dimension, torch.tensor(list(places), dtype=torch.long))
            index = (*index[:dimension], slice(None), *index[dimension + 1 :])
    return x[index]


def _index(node: Node) -> Callable[[Values], Index]:
    begin, end, rank = node.integers("begin"), node.integers("end"), len(node.one("x").shape)
    strides = node.constants("stride") or [1] * rank
    masks = [node.constants(f"{name}_mask") or [0] * rank for name in ("begin", "end", "squeeze")]

    def index(values: Values) -> Index:
        return slices(begin(values), end(values), strides, masks)

    if all(node.one(name).constant is not None for name in ("begin", "end")):
        fixed = index([])
        return lambda values: fixed
    return index


def slices(begin: Sequence[int], end: Sequence[int], strides: Sequence[int], masks: Sequence[Sequence[int]]) -> Index:
    """A mask leaves out where a slice begins or ends, or takes the one place where it begins."""
    rows = zip(begin, end, strides, *masks, strict=True)
    return tuple(
        first if squeezed else slice(None if opened else first, None if ended else last, stride)
        for first, last, stride, opened, ended, squeezed in rows
    )
