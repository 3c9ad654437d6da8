"""Matrix products, and attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from slmc.mil.node import Kernel, Kind, Node, Values, like


def _linear(node: Node) -> Kernel:
    x, weight, bias = node.slot("x"), node.slot("weight"), node.optional("bias")
    if bias is None:
        return lambda values: functional.linear(values[x], values[weight])
    return lambda values: functional.linear(values[x], values[weight], values[bias])


def _matmul(node: Node) -> Kernel:
    turned = [name for name in ("x", "y") if node.flag(f"transpose_{name}") and len(node.one(name).shape) > 1]
    x, y, turn_x, turn_y = node.slot("x"), node.slot("y"), "x" in turned, "y" in turned

    def kernel(values: Values) -> Tensor:
        left, right = values[x], values[y]
        return torch.matmul(left.mT if turn_x else left, right.mT if turn_y else right)

    return kernel


def _conv(node: Node) -> Kernel:
    """Over single places: then it is a matrix product for each."""
    x, weight, bias, shape = node.slot("x"), node.slot("weight"), node.optional("bias"), node.shape("weight")
    pads, custom = node.constants("pad") or [], node.text("pad_type", "valid") == "custom"
    moved = any(step != 1 for step in node.constants("strides") or []) or (custom and any(pads))
    if any(size != 1 for size in shape[2:]) or moved or node.integer("groups", 1) != 1:
        raise ValueError(f"a kernel {list(shape[2:])}, strides, padding or groups: only 1x1 over all channels is done")

    def kernel(values: Values) -> Tensor:
        image = values[x]
        found = torch.matmul(values[weight].flatten(1), image.flatten(2))
        if bias is not None:
            found += values[bias][:, None]
        return found.reshape(image.shape[0], shape[0], *image.shape[2:])

    return kernel


def _attention(node: Node) -> Kernel:
    """iOS 18's: softmax(query keys^T / sqrt(size) + mask) values. Batch dimensions are the same, none is broadcast."""
    query, key, value, mask = node.slot("query"), node.slot("key"), node.slot("value"), node.optional("attn_mask")
    shapes = [node.one(name).shape for name in ("query", "key", "value")]
    if len({shape[:-2] for shape in shapes}) > 1 or len(shapes[0]) < 3:
        raise ValueError(f"query, key and value {[list(shape) for shape in shapes]}, whose batches differ")

    def kernel(values: Values) -> Tensor:
        queries = values[query]
        scores = torch.matmul(queries, values[key].mT) / math.sqrt(queries.shape[-1])
        if mask is not None and values[mask].dtype == torch.bool:
            scores.masked_fill_(~values[mask], -math.inf)
        elif mask is not None:
            scores += values[mask]
        return torch.matmul(scores.softmax(-1), values[value])

    return kernel


PRODUCTS: dict[str, Kind] = {
    "conv": Kind(_conv, like("x", "weight", "bias")),
    "linear": Kind(_linear, like("x", "weight", "bias")),
    "matmul": Kind(_matmul, like("x", "y")),
    "scaled_dot_product_attention": Kind(_attention, like("query", "key", "value")),
}
