"""What the decoder is made of, as tensor expressions: each becomes one kernel, with what is fused into it.

Activations are of the model's type, float16 or float32; sums and what lies between an operation's input and its output
are float32. TVM has no types for mypy: `Expr` is an expression or a tensor of expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import te, tirx

from slmc.architecture import Architecture
from slmc.backends.mlc.tensors import GROUP

Expr: TypeAlias = Any
WIDE = "float32"
_PER_WORD = 8


def wide(value: Expr) -> Expr:
    """As float32."""
    return tirx.Cast(WIDE, value)


def constant(value: float) -> Expr:
    return tirx.const(value, WIDE)


def weight(words: Expr, scales: Expr, row: Expr, column: Expr) -> Expr:
    """One of a quantized matrix, in the scales' type. Exact in float16: three bits times bf16's eight."""
    dtype = scales.dtype
    shift = tirx.Cast("uint32", column % _PER_WORD * 4)
    code = tirx.bitwise_and(tirx.shift_right(words[row, column // _PER_WORD], shift), tirx.const(15, "uint32"))
    return (tirx.Cast(dtype, code) - tirx.const(7, dtype)) * scales[row, column // GROUP]


def dequantized(words: Expr, scales: Expr) -> Expr:
    """[rows, columns] of words [rows, columns / 8] and scales [rows, columns / 32]."""
    rows, columns = words.shape[0], words.shape[1] * _PER_WORD
    return te.compute((rows, columns), lambda n, k: weight(words, scales, n, k), name="dequantize")


def product(x: Expr, matrix: Expr, out: str) -> Expr:
    """x [batch, tokens, columns] times the transpose of matrix [rows, columns], summed in float32."""
    rows, columns = matrix.shape
    k = te.reduce_axis((0, columns), "k")
    summed = te.compute(
        (x.shape[0], x.shape[1], rows),
        lambda b, i, n: te.sum(wide(x[b, i, k]) * wide(matrix[n, k]), axis=k),
        name="product",
    )
    return summed if out == WIDE else te.compute(summed.shape, lambda *at: tirx.Cast(out, summed[at]), name="narrow")


def norm(x: Expr, scale: Expr, epsilon: float) -> Expr:
    """x [batch, tokens, hidden], float32, over the root of its mean square, times scale [hidden], in scale's type."""
    squares, size = _squares(x), int(x.shape[-1])
    return te.compute(
        x.shape,
        lambda b, i, h: tirx.Cast(scale.dtype, _normed(x[b, i, h], squares[b, i], size, epsilon) * wide(scale[h])),
        name="norm",
    )


def norm_heads(qkv: Expr, q_scale: Expr, k_scale: Expr, a: Architecture) -> Expr:
    """The same for each query and key of qkv [batch, tokens, heads + 2 kv_heads, head_dim]; values stay."""
    squares = _squares(qkv)

    def one(b: Expr, i: Expr, h: Expr, d: Expr) -> Expr:
        scale = wide(tirx.if_then_else(h < a.heads, q_scale[d], k_scale[d]))
        normed = _normed(wide(qkv[b, i, h, d]), squares[b, i, h], a.head_dim, a.rms_eps) * scale
        return tirx.if_then_else(h < a.heads + a.kv_heads, tirx.Cast(qkv.dtype, normed), qkv[b, i, h, d])

    return te.compute(qkv.shape, one, name="norm_heads")


def _squares(x: Expr) -> Expr:
    """Their sum in the last dimension."""
    k = te.reduce_axis((0, x.shape[-1]), "k")
    return te.compute(x.shape[:-1], lambda *at: te.sum(wide(x[(*at, k)]) * wide(x[(*at, k)]), axis=k), name="squares")


def _normed(value: Expr, squares: Expr, size: int, epsilon: float) -> Expr:
    return value * tirx.rsqrt(squares / constant(float(size)) + constant(epsilon))


def turn(inputs: Sequence[Expr], turned_heads: int) -> Expr:
    """Queries and keys of qkv turned by positions int32 [batch * tokens], and tables [context, rotary_dim / 2].

    `inputs` are qkv, positions, cosines and sines. Elements behind rotary_dim stay, and so do values.
    """
    qkv, positions, cosines, sines = inputs
    tokens, half = qkv.shape[1], int(cosines.shape[1])

    def one(b: Expr, i: Expr, h: Expr, d: Expr) -> Expr:
        position, value = positions[b * tokens + i], wide(qkv[b, i, h, d])
        other = tirx.if_then_else(d < half, -wide(qkv[b, i, h, d + half]), wide(qkv[b, i, h, d - half]))
        found = value * cosines[position, d % half] + other * sines[position, d % half]
        turned = tirx.And(h < turned_heads, d < 2 * half)
        return tirx.if_then_else(turned, tirx.Cast(qkv.dtype, found), qkv[b, i, h, d])

    return te.compute(qkv.shape, one, name="turn")


def gated(both: Expr, a: Architecture) -> Expr:
    """The gate's activation times up, of gate and up [batch, tokens, 2 * intermediate]."""
    inner = a.intermediate_size

    def one(b: Expr, i: Expr, k: Expr) -> Expr:
        gate, up = wide(both[b, i, k]), wide(both[b, i, k + inner])
        return tirx.Cast(both.dtype, (_silu(gate) if a.gate == "silu" else _gelu_tanh(gate)) * up)

    return te.compute((both.shape[0], both.shape[1], inner), one, name="gated")


def _silu(x: Expr) -> Expr:
    return x / (constant(1.0) + tirx.exp(-x))


def _gelu_tanh(x: Expr) -> Expr:
    inner = constant(0.7978845608028654) * (x + constant(0.044715) * x * x * x)
    return constant(0.5) * x * (constant(1.0) + tirx.tanh(inner))


def rows(ids: Expr, matrix: Any, a: Architecture, dtype: str) -> Expr:
    """Of the embedding, [tokens, hidden]; `matrix` gives one element."""
    scale = tirx.const(a.embedding_scale, dtype)
    return te.compute((ids.shape[0], a.hidden_size), lambda i, k: matrix(ids[i], k) * scale, name="embed_rows")


def add(x: Expr, y: Expr) -> Expr:
    """float32 plus what attention or MLP gave."""
    return te.compute(x.shape, lambda *at: x[at] + wide(y[at]), name="add")


def widened(x: Expr) -> Expr:
    return te.compute(x.shape, lambda *at: wide(x[at]), name="widened")


def plus_bias(x: Expr, bias: Expr) -> Expr:
    """x [batch, tokens, rows], float32; in the bias' type."""
    return te.compute(x.shape, lambda b, i, n: tirx.Cast(bias.dtype, x[b, i, n] + wide(bias[n])), name="plus_bias")


def joined(parts: tuple[Expr, ...]) -> Expr:
    """q, k and v one after another, where they are matrices of their own."""
    ends, total = [], 0
    for part in parts:
        total += int(part.shape[2])
        ends.append(total)

    def one(b: Expr, i: Expr, n: Expr) -> Expr:
        value = parts[-1][b, i, n - ends[-2]]
        for place in reversed(range(len(parts) - 1)):
            start = ends[place - 1] if place else 0
            value = tirx.if_then_else(n < ends[place], parts[place][b, i, n - start], value)
        return value

    return te.compute((parts[0].shape[0], parts[0].shape[1], total), one, name="joined")


def taken(x: Expr, places: Expr) -> Expr:
    """Tokens of x [1, tokens, hidden]: [1, places, hidden]."""
    return te.compute((1, places.shape[0], x.shape[2]), lambda b, i, h: x[b, places[i], h], name="taken")


def last(x: Expr) -> Expr:
    """The last token of x [1, tokens, hidden]: [1, 1, hidden]."""
    return te.compute((1, 1, x.shape[2]), lambda b, i, h: x[b, x.shape[1] - 1, h], name="last")


def softmax(logits: Expr, temperature: Expr) -> Expr:
    """Probabilities of logits [sequences, 1, vocabulary] at temperatures [sequences].

    At a temperature of 0 the highest share the whole.
    """
    sequences, _, size = logits.shape
    least = constant(1e-5)
    k, j = te.reduce_axis((0, size), "k"), te.reduce_axis((0, size), "j")
    highest = te.compute((sequences,), lambda s: te.max(logits[s, 0, k], axis=k), name="highest")

    def share(s: Expr, v: Expr) -> Expr:
        below = logits[s, 0, v] - highest[s]
        is_highest = tirx.Select(below >= constant(0.0), constant(1.0), constant(0.0))
        cold = temperature[s] <= least
        return tirx.Select(cold, is_highest, tirx.exp(below / tirx.Select(cold, constant(1.0), temperature[s])))

    total = te.compute((sequences,), lambda s: te.sum(share(s, j), axis=j), name="total")
    return te.compute(logits.shape, lambda s, _, v: share(s, v) / total[s], name="softmax")
