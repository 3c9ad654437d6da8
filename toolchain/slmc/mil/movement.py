"""Operations that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slmc.mil.dtypes import DType, named
from slmc.mil.held import held
from slmc.mil.node import Kernel, Kind, Node, Values, always, like, moves
from slmc.mil.slicing import by_index, by_size, update


def _gather(node: Node) -> Kernel:
    """iOS 17's: an index that is negative or too large is a fault, which torch names."""
    x, indices, axis = node.slot("x"), node.slot("indices"), node.integer("axis", 0)
    axis %= len(node.one("x").shape)
    if node.integer("batch_dims", 0):
        raise ValueError("batch_dims, which are not done")

    def kernel(values: Values) -> Tensor:
        table, places = values[x], values[indices]
        found = table.index_select(axis, places.reshape(-1).int())
        return found.reshape(table.shape[:axis] + places.shape + table.shape[axis + 1 :])

    return kernel


def _expand_dims(node: Node) -> Kernel:
    x, axes = node.slot("x"), node.constants("axes") or []
    rank = len(node.one("x").shape) + len(axes)
    places = sorted(axis % rank for axis in axes)

    def kernel(values: Values) -> Tensor:
        found = values[x]
        for axis in places:
            found = found.unsqueeze(axis)
        return found

    return kernel


def _squeeze(node: Node) -> Kernel:
    """Dimensions of other sizes than one are left alone."""
    x, axes = node.slot("x"), node.constants("axes")
    given = tuple(range(len(node.one("x").shape))) if axes is None else tuple(axes)
    return lambda values: values[x].squeeze(given)


def _reshape(node: Node) -> Kernel:
    x, shape = node.slot("x"), node.integers("shape")
    return lambda values: values[x].reshape(filled(shape(values), values[x].shape))


def filled(shape: Sequence[int], old: Sequence[int]) -> list[int]:
    """A shape whose zeros are the old sizes, counted from the right as iOS 17 does, or one where there is none."""
    if 0 not in shape:
        return list(shape)
    padded = [1] * max(0, len(shape) - len(old)) + list(old)
    return [size or padded[len(padded) - len(shape) + place] for place, size in enumerate(shape)]


def _transpose(node: Node) -> Kernel:
    x, order = node.slot("x"), node.constants("perm") or []
    return lambda values: values[x].permute(order)


def _concat(node: Node) -> Kernel:
    slots, axis = [slot.index for slot in node.all("values")], node.integer("axis")
    axis %= len(node.all("values")[0].shape) or 1
    if node.flag("interleave"):
        return lambda values: torch.stack([values[slot] for slot in slots], axis + 1).flatten(axis, axis + 1)
    return lambda values: torch.cat([values[slot] for slot in slots], axis)


def _stack(node: Node) -> Kernel:
    slots, axis = [slot.index for slot in node.all("values")], node.integer("axis")
    return lambda values: torch.stack([values[slot] for slot in slots], axis)


def _split(node: Node) -> Kernel:
    x, axis, sizes = node.slot("x"), node.integer("axis"), node.constants("split_sizes")
    if sizes is not None:
        given = sizes
        return lambda values: torch.split(values[x], given, axis)
    parts = node.integer("num_splits")
    return lambda values: torch.tensor_split(values[x], parts, axis)


def _tile(node: Node) -> Kernel:
    x, repeats = node.slot("x"), node.integers("reps")
    return lambda values: values[x].repeat(repeats(values))


def _shape(node: Node) -> Kernel:
    x = node.slot("x")
    return lambda values: torch.tensor(values[x].shape, dtype=torch.int32)


def _range(node: Node) -> Kernel:
    start, end, step = (node.slot(name) for name in ("start", "end", "step"))
    type_ = held(node.operation.outputs[0].dtype)
    return lambda values: torch.arange(values[start].item(), values[end].item(), values[step].item(), dtype=type_)


def _fill(node: Node) -> Kernel:
    shape, type_ = node.integers("shape"), held(node.operation.outputs[0].dtype)
    value = node.constant("value").item() if node.has("value") else 0
    return lambda values: torch.full(shape(values), value, dtype=type_)


def _filling(node: Node) -> DType:
    return node.one("value").dtype if node.has("value") else named("fp32")


def _band_part(node: Node) -> Kernel:
    """Elements at most so many places below or above the diagonal; the others are zero. Negative: all."""
    x, lower, upper = node.slot("x"), node.integer("lower", -1), node.integer("upper", -1)

    def kernel(values: Values) -> Tensor:
        found = values[x] if lower < 0 else values[x].triu(-lower)
        return found if upper < 0 else found.tril(upper)

    return kernel


def _identity(node: Node) -> Kernel:
    x = node.slot("x")
    return lambda values: values[x]


MOVEMENT: dict[str, Kind] = {
    "band_part": moves(_band_part),
    "concat": moves(_concat, "values"),
    "expand_dims": moves(_expand_dims),
    "fill": Kind(_fill, _filling, computes=False),
    "gather": moves(_gather),
    "identity": moves(_identity),
    "range_1d": Kind(_range, like("start", "end", "step")),
    "reshape": moves(_reshape),
    "shape": Kind(_shape, always("int32"), computes=False),
    "slice_by_index": moves(by_index),
    "slice_by_size": moves(by_size),
    "slice_update": moves(lambda node: update(node, in_place=False), "x", "update"),
    "split": moves(_split),
    "squeeze": moves(_squeeze),
    "stack": moves(_stack, "values"),
    "tile": moves(_tile),
    "transpose": moves(_transpose),
}
