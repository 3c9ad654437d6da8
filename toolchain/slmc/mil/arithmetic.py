"""Operations on elements, and reductions. All get floats in float32; what rounds their results is the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from slmc.mil.held import held
from slmc.mil.node import Kernel, Kind, Node, Values, always, like, told

_UINT16_MASK = 0xFFFF
_GELU = {
    "EXACT": functional.gelu,
    "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}


def _unary(function: Callable[[Tensor], Tensor]) -> Kind:
    return Kind(lambda node: _on_x(node, function), like("x"))


def _on_x(node: Node, function: Callable[[Tensor], Tensor]) -> Kernel:
    x = node.slot("x")
    return lambda values: function(values[x])


def _on_xy(node: Node, function: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    x, y = node.slot("x"), node.slot("y")
    return lambda values: function(values[x], values[y])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Kind:
    return Kind(lambda node: _on_xy(node, function), like("x", "y"))


def _comparison(function: Callable[[Tensor, Tensor], Tensor]) -> Kind:
    return Kind(lambda node: _on_xy(node, function), always("bool", "x", "y"))


def _rsqrt(node: Node) -> Kernel:
    epsilon = node.epsilon(1e-12)
    return _on_x(node, lambda x: torch.rsqrt(x + epsilon))


def _inverse(node: Node) -> Kernel:
    epsilon = node.epsilon(1e-4)
    return _on_x(node, lambda x: torch.reciprocal(x + epsilon))


def _gelu(node: Node) -> Kernel:
    mode = node.text("mode", "EXACT")
    if mode not in _GELU:
        raise ValueError(f"no mode {mode!r}; known: {', '.join(_GELU)}")
    return _on_x(node, _GELU[mode])


def _clip(node: Node) -> Kernel:
    low, high = float(node.constant("alpha")), float(node.constant("beta"))
    return _on_x(node, lambda x: x.clamp(low, high))


def _softmax(node: Node) -> Kernel:
    axis = node.integer("axis", -1)
    return _on_x(node, lambda x: x.softmax(axis))


def _cast(node: Node) -> Kernel:
    type_, name = held(node.operation.outputs[0].dtype), node.text("dtype")
    if name == "uint16":  # held in more bits than it has
        return _on_x(node, lambda x: x.to(type_) & _UINT16_MASK)
    return _on_x(node, lambda x: x.to(type_))


def _select(node: Node) -> Kernel:
    condition, a, b = node.slot("cond"), node.slot("a"), node.slot("b")
    return lambda values: torch.where(values[condition], values[a], values[b])


def _floor_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Kind:
    """A function of x, axes, and whether they stay with size one."""

    def bind(node: Node) -> Kernel:
        x, axes, keep = node.slot("x"), node.constants("axes"), node.flag("keep_dims")
        given = list(range(len(node.one("x").shape))) if axes is None else axes
        return lambda values: function(values[x], given, keep)

    return Kind(bind, like("x"))


def _argmax(node: Node) -> Kernel:
    axis, keep = node.integer("axis", -1), node.flag("keep_dims")
    return _on_x(node, lambda x: x.argmax(axis, keep).int())


def _layer_norm(node: Node) -> Kernel:
    x, axes, gamma, beta = node.slot("x"), node.constants("axes"), node.optional("gamma"), node.optional("beta")
    shape, epsilon = node.shape("x"), node.epsilon(1e-5)
    axes = list(range(len(shape))) if axes is None else [axis % len(shape) for axis in axes]
    if axes != list(range(len(shape) - len(axes), len(shape))):
        raise ValueError(f"normalizes over {axes} of {list(shape)}: only the last dimensions are")
    over = shape[len(shape) - len(axes) :]

    def kernel(values: Values) -> Tensor:
        weight, bias = (None if slot is None else values[slot] for slot in (gamma, beta))
        return functional.layer_norm(values[x], over, weight, bias, epsilon)

    return kernel


ARITHMETIC: dict[str, Kind] = {
    "abs": _unary(torch.abs),
    "add": _binary(torch.add),
    "cast": Kind(_cast, told("dtype")),
    "clip": Kind(_clip, like("x")),
    "cos": _unary(torch.cos),
    "equal": _comparison(torch.eq),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "floor_div": _binary(_floor_div),
    "gelu": Kind(_gelu, like("x")),
    "greater": _comparison(torch.gt),
    "greater_equal": _comparison(torch.ge),
    "inverse": Kind(_inverse, like("x")),
    "layer_norm": Kind(_layer_norm, like("x")),
    "less": _comparison(torch.lt),
    "less_equal": _comparison(torch.le),
    "logical_and": _binary(torch.logical_and),
    "logical_not": _unary(torch.logical_not),
    "logical_or": _binary(torch.logical_or),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mod": _binary(torch.remainder),
    "mul": _binary(torch.mul),
    "not_equal": _comparison(torch.ne),
    "pow": _binary(torch.pow),
    "real_div": _binary(torch.div),
    "reduce_argmax": Kind(_argmax, told("output_dtype", "int32")),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype)),
    "reduce_sum_square": _reduction(lambda x, axes, keep: (x * x).sum(axes, keep, dtype=x.dtype)),
    "relu": _unary(torch.relu),
    "rsqrt": Kind(_rsqrt, like("x")),
    "select": Kind(_select, like("a", "b"), computes=False),
    "sigmoid": _unary(torch.sigmoid),
    "silu": _unary(functional.silu),
    "sin": _unary(torch.sin),
    "softmax": Kind(_softmax, like("x")),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "sub": _binary(torch.sub),
    "tanh": _unary(torch.tanh),
}
