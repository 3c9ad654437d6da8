"""Each operation of the interpreter of saved ML programs, against numpy or torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmc.errors import RunnerError
from slmc.mil.dtypes import DTYPES, unpack
from slmc.mil.movement import filled
from slmc.mil.slicing import slices, take

from .mil_programs import (
    F16,
    I32,
    INT4,
    RANDOM,
    UINT4,
    Build,
    as_torch,
    mb,
    run,
    save,
    some,
    tensor,
    torch,
    types,
)

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


def check_rounded(found: np.ndarray, wanted: Any) -> None:
    """float16 nearest to what float64 says; one away where float32 and float64 fall to different sides."""
    exact = np.asarray(wanted)
    assert found.dtype == F16
    assert found.shape == exact.shape
    np.testing.assert_allclose(found, exact.astype(F16), rtol=2**-10, atol=2e-7)


UNARY: dict[str, tuple[Build, Callable[[Any], Any]]] = {
    "abs": (lambda x: mb.abs(x=x), torch.abs),
    "clip": (lambda x: mb.clip(x=x, alpha=F16(-1), beta=F16(0.5)), lambda x: x.clamp(-1, 0.5)),
    "cos": (lambda x: mb.cos(x=x), torch.cos),
    "erf": (lambda x: mb.erf(x=x), torch.erf),
    "exp": (lambda x: mb.exp(x=x), torch.exp),
    "gelu": (lambda x: mb.gelu(x=x, mode="EXACT"), torch.nn.functional.gelu),
    "gelu_tanh": (
        lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    ),
    "gelu_sigmoid": (lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), lambda x: x * torch.sigmoid(1.702 * x)),
    "inverse": (lambda x: mb.inverse(x=mb.abs(x=x), epsilon=F16(0.25)), lambda x: 1 / (x.abs() + 0.25)),
    "layer_norm": (
        lambda x: mb.layer_norm(x=x, axes=[-1], epsilon=F16(0.5)),
        lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:], eps=0.5),
    ),
    "relu": (lambda x: mb.relu(x=x), torch.relu),
    "rsqrt": (lambda x: mb.rsqrt(x=mb.abs(x=x), epsilon=F16(0.125)), lambda x: 1 / (x.abs() + 0.125).sqrt()),
    "sigmoid": (lambda x: mb.sigmoid(x=x), torch.sigmoid),
    "silu": (lambda x: mb.silu(x=x), torch.nn.functional.silu),
    "sin": (lambda x: mb.sin(x=x), torch.sin),
    "softmax": (lambda x: mb.softmax(x=x, axis=-1), lambda x: x.softmax(-1)),
    "softmax_first": (lambda x: mb.softmax(x=x, axis=0), lambda x: x.softmax(0)),
    "sqrt": (lambda x: mb.sqrt(x=mb.abs(x=x)), lambda x: x.abs().sqrt()),
    "square": (lambda x: mb.square(x=x), torch.square),
    "tanh": (lambda x: mb.tanh(x=x), torch.tanh),
    "reduce_mean": (lambda x: mb.reduce_mean(x=x, axes=[-1], keep_dims=True), lambda x: x.mean(-1, True)),
    "reduce_mean_all": (lambda x: mb.reduce_mean(x=x, axes=[0, 1]), lambda x: x.mean()),
    "reduce_sum": (lambda x: mb.reduce_sum(x=x, axes=[0]), lambda x: x.sum(0)),
    "reduce_max": (lambda x: mb.reduce_max(x=x, axes=[1], keep_dims=True), lambda x: x.amax(1, True)),
    "reduce_min": (lambda x: mb.reduce_min(x=x, axes=[1]), lambda x: x.amin(1)),
    "reduce_sum_square": (lambda x: mb.reduce_sum_square(x=x, axes=[1]), lambda x: x.square().sum(1)),
}


@pytest.mark.parametrize("shape", [(3, 8), (1, 17)])
def test_functions_of_one_operand(tmp_path: Path, shape: tuple[int, int]) -> None:
    package = save(tmp_path, [tensor(*shape)], lambda a: tuple(build(a) for build, _ in UNARY.values()))
    x = some(*shape)
    for name, found, (_, wanted) in zip(UNARY, run(package, x), UNARY.values(), strict=True):
        try:
            check_rounded(found, wanted(*as_torch(x)).numpy())
        except AssertionError as error:
            raise AssertionError(name) from error


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "floor_div": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "mod": torch.remainder,
}
COMPARED = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


@pytest.mark.parametrize("shapes", [((2, 5), (2, 5)), ((3, 1, 4), (2, 1))])
def test_functions_of_two_operands(tmp_path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    def build(a: Any, b: Any) -> tuple[Any, ...]:
        compared = (mb.cast(x=getattr(mb, name)(x=a, y=b), dtype="int32") for name in COMPARED)
        return (*(getattr(mb, name)(x=a, y=b) for name in BINARY), mb.pow(x=mb.abs(x=a), y=b), *compared)

    x, y = some(*shapes[0]), (RANDOM.integers(1, 9, shapes[1]) / 4).astype(F16)
    x.flat[0] = y.flat[0]
    found = run(save(tmp_path, [tensor(*shape) for shape in shapes], build), x, y)
    for one, function in zip(found, [*BINARY.values(), lambda x, y: x.abs() ** y], strict=False):
        check_rounded(one, function(*as_torch(x, y)).numpy())
    for one, name in zip(found[len(BINARY) + 1 :], COMPARED, strict=True):
        np.testing.assert_array_equal(one, getattr(np, name)(x, y))
    exact = {"add": x + y, "mul": x * y, "real_div": x / y}  # numpy rounds these once as well
    for name, wanted in exact.items():
        np.testing.assert_array_equal(found[list(BINARY).index(name)], wanted)


def test_integers_and_truth(tmp_path: Path) -> None:
    def build(a: Any, b: Any) -> tuple[Any, ...]:
        more, odd = mb.greater(x=a, y=b), mb.equal(x=mb.mod(x=a, y=np.int32(2)), y=np.int32(1))
        truths = (mb.logical_and(x=more, y=odd), mb.logical_or(x=more, y=odd), mb.logical_not(x=more))
        whole = (mb.add(x=a, y=b), mb.mul(x=a, y=b), mb.floor_div(x=a, y=b), mb.select(cond=more, a=a, b=b))
        return (*(mb.cast(x=one, dtype="int32") for one in truths), *whole, mb.cast(x=a, dtype="fp16"))

    x, y = np.arange(-6, 6, dtype=I32), np.full(12, 4, I32)
    found = run(save(tmp_path, [tensor(12, dtype=types.int32) for _ in range(2)], build), x, y)
    wanted = ((x > y) & (x % 2 == 1), (x > y) | (x % 2 == 1), x <= y, x + y, x * y, x // y, np.where(x > y, x, y), x)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, two)


def test_casts(tmp_path: Path) -> None:
    x = np.array([-2.75, -0.5, 0, 0.5, 300.6], F16)

    def build(a: Any) -> tuple[Any, ...]:
        whole = mb.cast(x=mb.cast(x=mb.abs(x=a), dtype="uint16"), dtype="int32")
        return mb.cast(x=a, dtype="int32"), mb.cast(x=mb.cast(x=a, dtype="bool"), dtype="int32"), whole

    found = run(save(tmp_path, [tensor(5)], build), x)
    assert [one.tolist() for one in found] == [[-2, 0, 0, 0, 300], [1, 1, 0, 1, 1], [2, 0, 0, 0, 300]]


def test_a_result_is_rounded_once(tmp_path: Path) -> None:
    """1024 products of 2049 / 2048: in float16 sums of many small values stand still."""
    x, weight = np.full((1, 1024), 1 / 64, F16), np.full((1, 1024), 1.001, F16)
    package = save(tmp_path, [tensor(1, 1024)], lambda a: mb.linear(x=a, weight=weight))
    exact = float(weight[0, 0]) * 1024 / 64
    assert run(package, x)[0].item() == F16(exact)


def test_movement(tmp_path: Path) -> None:
    def build(a: Any) -> tuple[Any, ...]:
        first, second = mb.split(x=a, axis=1, split_sizes=[1, 2])
        return (
            mb.transpose(x=a, perm=[2, 0, 1]),
            mb.expand_dims(x=a, axes=[0, -1]),
            mb.squeeze(x=mb.expand_dims(x=a, axes=[0, 2]), axes=[0]),
            mb.reshape(x=a, shape=[0, -1]),
            mb.reshape(x=a, shape=[6, 4]),
            mb.concat(values=[second, first], axis=1),
            mb.concat(values=[a, a], axis=-1, interleave=True),
            mb.stack(values=[a, a], axis=1),
            mb.tile(x=a, reps=[1, 2, 3]),
            mb.split(x=a, axis=-1, num_splits=2)[1],
            mb.slice_by_size(x=a, begin=[0, 1, 0], size=[1, -1, 3]),
            mb.band_part(x=a, lower=1, upper=0),
            mb.identity(x=a),
            mb.cast(x=mb.shape(x=a), dtype="fp16"),
        )

    x = some(2, 3, 4)
    wanted = (
        x.transpose(2, 0, 1),
        x[None, ..., None],
        x[:, None],
        x.reshape(3, 8),  # the zero is the size in its place, counted from the right
        x.reshape(6, 4),
        np.concatenate([x[:, 1:], x[:, :1]], 1),
        np.repeat(x, 2, -1),
        np.stack([x, x], 1),
        np.tile(x, (1, 2, 3)),
        x[..., 2:],
        x[:1, 1:, :3],
        np.tril(np.triu(x, -1)),
        x,
        np.array([2, 3, 4]),
    )
    for found, one in zip(run(save(tmp_path, [tensor(2, 3, 4)], build), x), wanted, strict=True):
        np.testing.assert_array_equal(found, one)


def test_made_of_numbers_alone(tmp_path: Path) -> None:
    def build(a: Any) -> tuple[Any, ...]:
        end = mb.squeeze(x=a, axes=[0])
        return (
            mb.fill(shape=[2, 3], value=F16(1.5)),
            mb.range_1d(start=np.int32(1), end=end, step=np.int32(2)),
            mb.cast(x=mb.fill(shape=mb.concat(values=[a, a], axis=0), value=np.int32(7)), dtype="fp16"),
        )

    found = run(save(tmp_path, [tensor(1, dtype=types.int32)], build), np.array([4], I32))
    for one, wanted in zip(found, (np.full((2, 3), 1.5), [1, 3], np.full((4, 4), 7)), strict=True):
        np.testing.assert_array_equal(one, wanted)


def test_gather_and_argmax(tmp_path: Path) -> None:
    table = some(11, 6)

    def build(a: Any, b: Any) -> tuple[Any, ...]:
        rows = mb.gather(x=table, indices=a, axis=0, batch_dims=0, validate_indices=False)
        columns = mb.gather(x=b, indices=a, axis=-1, batch_dims=0, validate_indices=False)
        return rows, columns, mb.reduce_argmax(x=b, axis=-1), mb.reduce_argmax(x=b, axis=0, keep_dims=True)

    at, x = np.array([[3, 0], [5, 4]], I32), some(2, 6)
    package = save(tmp_path, [tensor(2, 2, dtype=types.int32), tensor(2, 6)], build)
    wanted = (table[at], x[:, at], x.argmax(-1), x.argmax(0, keepdims=True))
    for found, one in zip(run(package, at, x), wanted, strict=True):
        np.testing.assert_array_equal(found, one)
    for bad in (-1, 11):
        with pytest.raises(RunnerError, match=r"gather.*index"):
            run(package, np.full((2, 2), bad, I32), x)


@pytest.mark.parametrize("shape", [(1, 3, 8), (2, 5, 8)])
def test_products(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    weight, bias = some(12, 8), some(12)

    def build(a: Any) -> tuple[Any, ...]:
        image = mb.expand_dims(x=mb.transpose(x=a, perm=[0, 2, 1]), axes=[2])  # [batch, 8, 1, tokens]
        return (
            mb.linear(x=a, weight=weight, bias=bias),
            mb.linear(x=a, weight=weight),
            mb.matmul(x=a, y=weight, transpose_y=True),
            mb.matmul(x=a, y=a, transpose_x=True),
            mb.conv(x=image, weight=weight[:, :, None, None], bias=bias, pad_type="valid"),
        )

    x = some(*shape)
    a, w, b = as_torch(x, weight, bias)
    product = a @ w.T
    wanted = (product + b, product, product, a.mT @ a, (product + b).mT[:, :, None])
    for found, one in zip(run(save(tmp_path, [tensor(*shape)], build), x), wanted, strict=True):
        np.testing.assert_allclose(found, one.numpy(), rtol=2**-10, atol=1e-5)


@pytest.mark.parametrize("masked", ["not", "bool", "float"])
def test_attention(tmp_path: Path, masked: str) -> None:
    queries, keys, values = some(1, 2, 6, 8), some(1, 2, 9, 8), some(1, 2, 9, 4)
    allowed = np.tri(6, 9, 3, dtype=bool)

    def build(a: Any, b: Any, c: Any) -> Any:
        mask = {"bool": allowed, "float": np.where(allowed, 0, -np.inf).astype(F16)}
        more = {} if masked == "not" else {"attn_mask": mask[masked]}
        return mb.scaled_dot_product_attention(query=a, key=b, value=c, **more)

    package = save(tmp_path, [tensor(*one.shape) for one in (queries, keys, values)], build)
    [found] = run(package, queries, keys, values)
    mask = None if masked == "not" else torch.from_numpy(allowed)
    wanted = torch.nn.functional.scaled_dot_product_attention(*as_torch(queries, keys, values), attn_mask=mask)
    check_rounded(found, wanted.numpy())


def test_weights_of_all_widths(tmp_path: Path) -> None:
    """Codes in a file of blobs: with scales, with scales and offsets, and in tables of as many values as bits allow."""
    signed, unsigned = RANDOM.integers(-8, 8, (6, 64)), RANDOM.integers(0, 16, (6, 64))
    scales, offsets = some(6, 2), RANDOM.integers(0, 16, (6, 2))
    widths = (1, 2, 3, 4, 6, 8)
    indices = {bits: RANDOM.integers(0, 1 << bits, (6, 5)) for bits in widths}
    tables = {bits: some(2, 1, 1 << bits, 1) for bits in widths}

    def lookup(bits: int) -> Any:
        kind = types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}"))
        return mb.constexpr_lut_to_dense(indices=indices[bits].astype(kind), lut=tables[bits])

    def build(a: Any) -> tuple[Any, ...]:
        dense = mb.constexpr_blockwise_shift_scale
        given = (
            dense(data=signed.astype(INT4), scale=scales),
            dense(data=unsigned.astype(UINT4), scale=scales, offset=offsets.astype(UINT4)),
            dense(data=signed.astype(np.int8), scale=scales[:1]),
            *(lookup(bits) for bits in widths),
        )
        return tuple(mb.add(x=one, y=a) for one in given)

    found = run(save(tmp_path, [tensor(1)], build), np.zeros(1, F16))
    wide, shift = (np.repeat(one.astype(np.float32), 32, 1) for one in (scales, offsets))
    looked = [np.take_along_axis(tables[b][[0, 0, 0, 1, 1, 1], 0, :, 0], indices[b], 1) for b in widths]
    for one, wanted in zip(found, (signed * wide, (unsigned - shift) * wide, signed * wide[:1], *looked), strict=True):
        np.testing.assert_array_equal(one, wanted.astype(F16))


def test_constants_of_all_types(tmp_path: Path) -> None:
    """Short ones are in the program, long ones in the file of blobs."""
    kinds = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32)

    def build(a: Any) -> tuple[Any, ...]:
        given = (mb.const(val=np.arange(count, dtype=kind)) for kind in kinds for count in (3, 12))
        return tuple(mb.add(x=mb.cast(x=one, dtype="int32"), y=a) for one in given)

    for found in run(save(tmp_path, [tensor(1, dtype=types.int32)], build), np.ones(1, I32)):
        np.testing.assert_array_equal(found, np.arange(len(found)) + 1)


@given(st.data(), st.integers(1, 3))
def test_slices_are_numpys(data: st.DataObject, rank: int) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank))
    x = np.arange(np.prod(shape)).reshape(shape)

    def row(elements: st.SearchStrategy[int]) -> list[int]:
        return data.draw(st.lists(elements, min_size=rank, max_size=rank))

    begin, end, strides = row(st.integers(-8, 8)), row(st.integers(-8, 8)), row(st.sampled_from([1, 2, 3, -1, -2]))
    masks = [row(st.integers(0, 1)) for _ in range(2)]
    wanted = tuple(
        slice(None if opened else first, None if ended else last, stride)
        for first, last, stride, opened, ended in zip(begin, end, strides, *masks, strict=True)
    )
    found = take(torch.from_numpy(x), slices(begin, end, strides, [*masks, [0] * rank]))
    np.testing.assert_array_equal(found.numpy(), x[wanted])


def test_slices_in_a_program(tmp_path: Path) -> None:
    x = some(4, 5, 6)

    def build(a: Any, b: Any) -> tuple[Any, ...]:
        end = mb.add(x=b, y=np.array([1, 2, 3], I32))
        return (
            mb.slice_by_index(x=a, begin=[1, 0, -2], end=[3, 5, 6], stride=[1, 2, 1]),
            mb.slice_by_index(x=a, begin=[3, 0, 0], end=[0, 0, 3], stride=[-1, 1, 1], end_mask=[False, True, False]),
            mb.slice_by_index(
                x=a, begin=[2, 0, 0], end=[0, 0, 1], end_mask=[False, True, False], squeeze_mask=[True, False, False]
            ),
            mb.slice_by_index(x=a, begin=b, end=end),
            mb.slice_update(x=a, update=np.ones((1, 2, 3), F16), begin=b, end=end),
        )

    package = save(tmp_path, [tensor(4, 5, 6), tensor(3, dtype=types.int32)], build)
    updated = x.copy()
    updated[1:2, 3:5, 2:5] = 1
    wanted = (x[1:3, ::2, -2:], x[3:0:-1, :, :3], x[2, :, :1], x[1:2, 3:5, 2:5], updated)
    given_x = x.copy()
    for found, one in zip(run(package, given_x, np.array([1, 3, 2], I32)), wanted, strict=True):
        np.testing.assert_array_equal(found, one)
    np.testing.assert_array_equal(given_x, x)  # inputs are not written into
    with pytest.raises(RunnerError, match=r"slice_update.*slice \[1, 1, 3\]"):
        run(package, x, np.array([1, 4, 2], I32))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_zeros_of_a_shape_count_from_the_right(old: list[int], data: st.DataObject) -> None:
    """Replacing any sizes by zero where the rank is the same changes nothing; what is before the old ones is one."""
    kept = data.draw(st.lists(st.booleans(), min_size=len(old), max_size=len(old)))
    asked = [size if keep else 0 for size, keep in zip(old, kept, strict=True)]
    assert filled(asked, old) == old
    assert filled([0, *asked], old) == [1, *old]


@given(st.sampled_from(["UINT1", "UINT2", "UINT3", "UINT4", "UINT6", "INT4"]), st.data())
def test_packed_codes_are_unpacked(kind: str, data: st.DataObject) -> None:
    dtype = DTYPES[kind]
    low, high = (-8, 7) if kind == "INT4" else (0, (1 << dtype.bits) - 1)
    codes = data.draw(st.lists(st.integers(low, high), max_size=40))
    packed = sum((code % (1 << dtype.bits)) << (dtype.bits * place) for place, code in enumerate(codes))
    octets = np.frombuffer(packed.to_bytes(-(-len(codes) * dtype.bits // 8), "little"), np.uint8)
    found = unpack(octets, dtype, len(codes))
    assert found.dtype == dtype.decoded
    assert found.tolist() == codes
