"""The interpreter of saved ML programs: each operation against numpy or torch, states, and faults that it must name."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ.setdefault("TQDM_DISABLE", "1")
for name in ("coremltools", "torchao"):
    logging.getLogger(name).setLevel(logging.ERROR)
torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

from coremltools.converters.mil.mil import Builder as mb  # noqa: E402, N813
from coremltools.converters.mil.mil import types  # noqa: E402
from coremltools.proto import Model_pb2  # noqa: E402

from slmc.errors import RunnerError  # noqa: E402
from slmc.mil.dtypes import DTYPES, unpack  # noqa: E402
from slmc.mil.interpreter import Interpreter  # noqa: E402
from slmc.mil.movement import filled  # noqa: E402
from slmc.mil.package import Package  # noqa: E402
from slmc.mil.slicing import slices, take  # noqa: E402
from slmc.mil.weights import Weights  # noqa: E402

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

F16, I32 = np.float16, np.int32
INT4, UINT4 = types.nptype_from_builtin(types.int4), types.nptype_from_builtin(types.uint4)
RANDOM = np.random.default_rng(7)
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")

Build = Callable[..., Any]


def tensor(*shape: int, dtype: Any = types.fp16) -> Any:
    return mb.TensorSpec(shape, dtype)


def state(*shape: int) -> Any:
    return mb.StateTensorSpec(shape, types.fp16)


def save(folder: Path, specs: Sequence[Any], build: Build, name: str = "model") -> Path:
    """`build` gets the inputs, and gives one result or several."""
    program = mb.program(input_specs=list(specs), opset_version=ct.target.iOS18)(_named(build, len(specs)))
    model = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    path = folder / f"{name}.mlpackage"
    model.save(str(path))
    return path


def _named(build: Build, count: int) -> Build:
    """mb looks at the parameters' names."""
    names = ", ".join("abcdef"[:count])
    found: Build = eval(f"lambda {names}: build({names})", {"build": build})
    return found


def run(package: Path, *inputs: np.ndarray, function: str = "main") -> list[np.ndarray]:
    """Outputs in order."""
    interpreter = Interpreter(Package(package), function)
    feeds = {name: torch.from_numpy(np.array(one)) for name, one in zip("abcdef", inputs, strict=False)}
    outputs = interpreter.run(feeds, interpreter.new_state())
    return [outputs[one.name].numpy() for one in interpreter.function.outputs]


def some(*shape: int, scale: float = 2.0) -> np.ndarray:
    return (RANDOM.standard_normal(shape) * scale).astype(F16)


def edit(package: Path, change: Callable[[Any], None]) -> Path:
    """Change the saved model: `change` gets the block of its function `main`."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    function = model.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (package / MODEL).write_bytes(model.SerializeToString())
    return package


def operation(block: Any, kind: str) -> Any:
    return next(one for one in block.operations if one.type == kind)


def as_torch(*arrays: np.ndarray) -> list[Any]:
    return [torch.from_numpy(one).double() for one in arrays]


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


SLOTS, WIDTH = 8, 4


def cache(tokens: int, touch: Callable[[Any], Any] = lambda found: found) -> Build:
    """Write rows `a` into the state `c` at the position `b`; the whole state plus one."""

    def build(a: Any, b: Any, c: Any) -> Any:
        zero = np.array([0], I32)
        end = mb.concat(values=[mb.add(x=b, y=np.int32(tokens)), np.array([WIDTH], I32)], axis=0)
        begin = mb.concat(values=[b, zero], axis=0)
        before = mb.read_state(input=c)
        new = mb.slice_update(x=before, update=a, begin=begin, end=end)
        found = mb.coreml_update_state(state=c, value=new)
        return touch((before, mb.add(x=found, y=F16(1))))

    return build


def cached(tokens: int) -> list[Any]:
    return [tensor(tokens, WIDTH), tensor(1, dtype=types.int32), state(SLOTS, WIDTH)]


def test_two_functions_over_one_state(tmp_path: Path) -> None:
    description = ct.utils.MultiFunctionDescriptor()
    for tokens, name in ((3, "prefill"), (1, "decode")):
        part = save(tmp_path, cached(tokens), cache(tokens, lambda found: found[1]), name)
        description.add_function(str(part), "main", name)
    description.default_function_name = "prefill"
    ct.utils.save_multifunction(description, str(tmp_path / "both.mlpackage"))
    package = Package(tmp_path / "both.mlpackage")
    prefill, decode = (Interpreter(package, name) for name in ("prefill", "decode"))
    kept, wanted = prefill.new_state(), np.zeros((SLOTS, WIDTH), F16)
    buffer = kept.buffers["c"]
    for interpreter, first, count in ((prefill, 0, 3), (decode, 3, 1), (decode, 4, 1), (prefill, 2, 3)):
        rows = some(count, WIDTH)
        wanted[first : first + count] = rows
        feeds = {"a": torch.from_numpy(rows), "b": torch.tensor([first], dtype=torch.int32)}
        [found] = interpreter.run(feeds, kept).values()
        np.testing.assert_array_equal(found.numpy(), wanted + F16(1))
        np.testing.assert_array_equal(kept.buffers["c"].numpy(), wanted)
    assert kept.buffers["c"] is buffer  # written in place
    with pytest.raises(RunnerError, match="slice_update"):  # beyond the last slot
        prefill.run({"a": torch.zeros(3, WIDTH).half(), "b": torch.tensor([6], dtype=torch.int32)}, kept)


def test_a_value_read_earlier_is_not_changed_by_an_update(tmp_path: Path) -> None:
    package = save(tmp_path, cached(1), cache(1, lambda found: (mb.identity(x=found[0]), found[1])))
    interpreter = Interpreter(Package(package))
    kept = interpreter.new_state()
    feeds = {"a": torch.ones(1, WIDTH).half(), "b": torch.tensor([2], dtype=torch.int32)}
    before, after = interpreter.run(feeds, kept).values()
    assert not before.any()
    assert after.sum() == SLOTS * WIDTH + WIDTH


def test_an_update_that_is_not_written_changes_no_state(tmp_path: Path) -> None:
    def build(a: Any, b: Any) -> Any:
        new = mb.slice_update(x=mb.read_state(input=b), update=a, begin=[0], end=[2])
        again = mb.coreml_update_state(state=b, value=mb.concat(values=[a, a], axis=0))
        return mb.add(x=new, y=again)

    interpreter = Interpreter(Package(save(tmp_path, [tensor(2), state(4)], build)))
    kept = interpreter.new_state()
    for wanted in ([6, 8, 3, 4], [6, 8, 6, 8]):
        [found] = interpreter.run({"a": torch.tensor([3, 4]).half()}, kept).values()
        assert found.tolist() == wanted
    assert kept.buffers["b"].tolist() == [3, 4, 3, 4]


def test_a_state_is_written_each_time(tmp_path: Path) -> None:
    """With a constant, and after the sum of it and what was there."""

    def build(a: Any, b: Any) -> Any:
        found = mb.add(x=a, y=mb.read_state(input=b))
        mb.coreml_update_state(state=b, value=np.array([5, 6], F16))
        return found

    interpreter = Interpreter(Package(save(tmp_path, [tensor(2), state(2)], build)))
    kept = interpreter.new_state()
    other = kept.copy()
    for held, wanted in ((kept, [1, 2]), (kept, [6, 8]), (other, [1, 2])):
        [found] = interpreter.run({"a": torch.tensor([1, 2]).half()}, held).values()
        assert found.tolist() == wanted
        assert held.buffers["b"].tolist() == [5, 6]


def test_equal_weights_of_two_functions_are_decoded_once(tmp_path: Path) -> None:
    weight, description = some(16, 8), ct.utils.MultiFunctionDescriptor()
    codes = RANDOM.integers(-8, 8, (16, 8)).astype(INT4)

    def build(a: Any) -> Any:
        dense = mb.constexpr_blockwise_shift_scale(data=codes, scale=weight[:, :1])
        return mb.add(x=mb.linear(x=a, weight=weight), y=mb.linear(x=a, weight=dense))

    for rows in (1, 2):
        part = save(tmp_path, [tensor(rows, 8)], build, f"rows{rows}")
        description.add_function(str(part), "main", f"rows{rows}")
    description.default_function_name = "rows1"
    ct.utils.save_multifunction(description, str(tmp_path / "both.mlpackage"))
    package = Package(tmp_path / "both.mlpackage")
    one, two = (Interpreter(package, name)._program.values for name in ("rows1", "rows2"))
    held = [{value.data_ptr() for value in values if value.shape == (16, 8)} for values in (one, two)]
    assert len(held[0]) == 2
    assert held[0] == held[1]
    assert Weights.of(package) is Weights.of(package)


# Planted faults


def test_a_dropped_write_is_named(tmp_path: Path) -> None:
    def drop(block: Any) -> None:
        places = [place for place, one in enumerate(block.operations) if one.type == "write_state"]
        del block.operations[places[0]]

    package = edit(save(tmp_path, cached(1), cache(1)), drop)
    with pytest.raises(RunnerError, match="state 'c' is never written"):
        Interpreter(Package(package))


def test_an_overflow_is_named_where_it_happens(tmp_path: Path) -> None:
    def build(a: Any) -> Any:
        mean = mb.reduce_mean(x=mb.mul(x=a, y=a, name="squared"), axes=[-1], keep_dims=True)
        return mb.mul(x=a, y=mb.rsqrt(x=mean, epsilon=F16(1e-5)))

    package = save(tmp_path, [tensor(1, 4)], build)
    assert np.isfinite(run(package, np.full((1, 4), 250, F16))[0]).all()
    with pytest.raises(RunnerError, match=r"mul 'squared': makes values beyond fp16; the largest .input. is 300"):
        run(package, np.array([[1, 2, -300, 3]], F16))


def test_infinities_of_a_mask_pass_and_numbers_that_are_none_do_not(tmp_path: Path) -> None:
    def build(a: Any, b: Any) -> Any:
        mask = mb.select(cond=mb.cast(x=b, dtype="bool"), a=np.zeros((1, 3), F16), b=F16(-np.inf))
        return mb.softmax(x=mb.add(x=a, y=mask), axis=-1, name="weights")

    package = save(tmp_path, [tensor(1, 3), tensor(1, 3, dtype=types.int32)], build)
    [found] = run(package, np.zeros((1, 3), F16), np.array([[1, 0, 1]], I32))
    assert found.tolist() == [[0.5, 0, 0.5]]
    with pytest.raises(RunnerError, match="softmax 'weights': makes values that are no numbers"):
        run(package, np.zeros((1, 3), F16), np.zeros((1, 3), I32))


def test_a_nan_may_be_chosen_and_not_computed_with(tmp_path: Path) -> None:
    nan = np.array([np.nan], F16)

    def choose(a: Any, b: Any) -> Any:
        return mb.exp(x=mb.select(cond=mb.cast(x=b, dtype="bool"), a=a, b=nan))

    package = save(tmp_path, [tensor(1), tensor(1, dtype=types.int32)], choose)
    assert run(package, np.zeros(1, F16), np.array([1], I32)) == [1]
    assert np.isnan(run(package, np.zeros(1, F16), np.array([0], I32))[0])
    with pytest.raises(RunnerError, match="mul 'scaled': computes with a constant that holds"):
        Interpreter(Package(save(tmp_path, [tensor(1)], lambda a: mb.mul(x=a, y=nan, name="scaled"), "other")))


def quantized(folder: Path) -> Path:
    codes, scales = RANDOM.integers(-8, 8, (6, 64)).astype(INT4), some(6, 2)

    def build(a: Any) -> Any:
        return mb.linear(x=a, weight=mb.constexpr_blockwise_shift_scale(data=codes, scale=scales, name="codes"))

    return save(folder, [tensor(1, 64)], build)


def test_scales_along_another_axis_are_named(tmp_path: Path) -> None:
    def turn(block: Any) -> None:
        value = operation(block, "constexpr_blockwise_shift_scale").inputs["scale"].arguments[0].value
        rows, columns = value.type.tensorType.dimensions
        rows.constant.size, columns.constant.size = columns.constant.size, rows.constant.size

    package = edit(quantized(tmp_path), turn)
    with pytest.raises(RunnerError, match=r"blockwise_shift_scale 'codes': scales \[2, 6\] do not divide \[6, 64\]"):
        Interpreter(Package(package))


def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    package = quantized(tmp_path)
    path = package / WEIGHTS
    whole = path.read_bytes()
    for damaged, said in (
        (whole[:-64], "bytes at|no blob can begin"),
        (whole[:32], "not a file of weights"),
        (b"", "can't map the weights"),
        (whole.replace(b"\xef\xbe\xad\xde", b"\xef\xbe\xad\xdf"), "header begins with 0xdfadbeef"),
        (whole[:4] + b"\x07" + whole[5:], "not a file of weights"),
        (whole[:68] + b"\x63" + whole[69:], "a blob of type 99"),
        (whole[:72] + b"\x63" + whole[73:], "bytes"),
        (whole[:80] + b"\xff" * 7 + whole[87:], "are not in the file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(RunnerError, match=said) as raised:
            Package(package)
        assert str(path) in str(raised.value)
    path.write_bytes(whole)
    assert np.isfinite(run(package, some(1, 64))[0]).all()
    path.unlink()
    with pytest.raises(RunnerError, match="missing"):
        Package(package)


def test_damage_anywhere_is_an_error_that_is_named(tmp_path: Path) -> None:
    package = quantized(tmp_path)
    whole = (package / MODEL).read_bytes()
    for place in range(0, len(whole), 7):
        octets = bytearray(whole)
        octets[place] ^= 0x55
        (package / MODEL).write_bytes(octets)
        with contextlib.suppress(RunnerError):
            Interpreter(Package(package)).run({"a": torch.zeros(1, 64).half()})


@pytest.mark.parametrize("path", ["../../outside", "/etc/hostname", "com.apple.CoreML/link", "missing", "a\0b"])
def test_a_path_that_leaves_the_package_is_named(tmp_path: Path, path: str) -> None:
    package = quantized(tmp_path)
    (tmp_path / "outside").write_bytes((package / MODEL).read_bytes())
    (package / "Data/com.apple.CoreML/link").symlink_to(tmp_path / "outside")
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunnerError, match=r"leaves the package|missing"):
        Package(package)


def test_what_is_no_package_is_named(tmp_path: Path) -> None:
    for text, said in ((None, "not a Core ML package"), ("{", "not a Core ML package"), ("[]", "whole file|dict")):
        if text is not None:
            (tmp_path / "Manifest.json").write_text(text)
        with pytest.raises(RunnerError, match=said):
            Package(tmp_path)
    package = quantized(tmp_path)
    (package / MODEL).write_bytes(b"")
    with pytest.raises(RunnerError, match="a model of kind None"):
        Package(package)
    (package / MODEL).write_bytes(b"\xff" * 30)
    with pytest.raises(RunnerError, match="can't read the model"):
        Package(package)


def test_what_a_file_declares_wrongly_is_named(tmp_path: Path) -> None:
    def change(kind: str, said: str, how: Callable[[Any], None]) -> None:
        package = save(tmp_path, [tensor(2, 3)], lambda a: mb.add(x=mb.mul(x=a, y=F16(2)), y=a, name="sum"))
        edit(package, lambda block: how(operation(block, kind)))
        with pytest.raises(RunnerError, match=said):
            run(package, some(2, 3))

    def size(one: Any) -> None:
        one.outputs[0].type.tensorType.dimensions[1].constant.size = 4

    def dtype(number: int) -> Callable[[Any], None]:
        def how(one: Any) -> None:
            one.outputs[0].type.tensorType.dataType = number

        return how

    def rename(name: str) -> Callable[[Any], None]:
        return lambda one: setattr(one, "type", name)

    change("add", r"add 'sum': makes torch.float32 \[2, 3\]\n.*\n  expected: fp16 \[2, 4\]", size)
    change("add", "add 'sum': makes fp16 and is to make fp32", dtype(11))
    change("mul", "element type number 77", dtype(77))
    change("mul", "element type FLOAT8E5M2", dtype(41))
    change("add", "resample 'sum': an operation that is not done", rename("resample"))
    change("add", "linear 'sum': no parameter 'weight'", rename("linear"))
    change("add", "makes 'mul_0' again", lambda one: setattr(one.outputs[0], "name", "mul_0"))
    change("add", "uses 'nothing' before it is made", lambda one: _use(one, "nothing"))


def _use(one: Any, name: str) -> None:
    one.inputs["y"].arguments[0].name = name


def test_a_kernel_wider_than_one_is_named(tmp_path: Path) -> None:
    weight = some(4, 2, 1, 3)
    package = save(tmp_path, [tensor(1, 2, 1, 5)], lambda a: mb.conv(x=a, weight=weight, pad_type="valid", name="wide"))
    with pytest.raises(RunnerError, match="conv 'wide': a kernel"):
        Interpreter(Package(package))


def test_inputs_and_states_that_are_not_the_functions_are_named(tmp_path: Path) -> None:
    interpreter = Interpreter(Package(save(tmp_path, cached(1), cache(1))))
    rows, position = torch.zeros(1, WIDTH).half(), torch.zeros(1, dtype=torch.int32)
    kept = interpreter.new_state()
    for feeds, said in (
        ({"a": rows}, "inputs"),
        ({"a": rows, "b": position, "d": rows}, "inputs"),
        ({"a": rows.float(), "b": position}, "'a' is torch.float32"),
        ({"a": rows[0], "b": position}, r"'a' is torch.float16 \[4\]"),
    ):
        with pytest.raises(RunnerError, match=said):
            interpreter.run(feeds, kept)
    with pytest.raises(RunnerError, match="state 'c' is missing"):
        interpreter.run({"a": rows, "b": position})
    with pytest.raises(RunnerError, match="no function 'decode'"):
        Interpreter(Package(tmp_path / "model.mlpackage"), "decode")
