"""XNNPACK's graphs as ExecuTorch's delegate reads them, written with ExecuTorch's own schema and serializer.

A value's shape has `TOKENS` where the number of tokens stands, which is known only when the graph runs; XNNPACK
then reshapes every value after it. Constants lie beside the graphs, under the digest of their bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import serialize_xnnpack_binary
from executorch.backends.xnnpack.utils.xnnpack_constants import (
    UINT64_MAX,
    XNN_INVALID_VALUE_ID,
    XNN_VALUE_FLAG_EXTERNAL_INPUT,
    XNN_VALUE_FLAG_EXTERNAL_OUTPUT,
)

from slmc.checkpoint.dtypes import Float32
from slmc.models.blocks import TOKENS
from slmc.quant.packing import Codes

_NO_HANDLE = 65535
"""Of a node that stands for none of a traced graph's."""
_NOT_INLINE = UINT64_MAX
"""Offset of a constant that is found by its key."""
_MOST_INPUTS_OF_CAT = 5


@dataclass(frozen=True)
class Value:
    id: int
    shape: tuple[int, ...]


@dataclass
class Constants:
    """Bytes by key; equal bytes once."""

    data: dict[str, bytes] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    """Keys of codes and scales."""

    def add(self, content: bytes) -> str:
        key = hashlib.sha256(content).hexdigest()
        self.data[key] = content
        return key

    def add_weight(self, content: bytes) -> str:
        key = self.add(content)
        self.weights.add(key)
        return key


@dataclass(frozen=True)
class Weight:
    """A matrix of 4-bit codes with the keys of its constants."""

    rows: int
    columns: int
    group: int
    codes_key: str
    scales_key: str


def pack_weight(codes: Codes, scales: Float32, constants: Constants) -> Weight:
    """int8 [rows, columns] in [-8, 7] and float32 [rows, columns / group] that bf16 holds, as XNNPACK's qb4w takes
    them: two codes a byte, the first in its low half, each plus 8; bf16 scales.
    """
    rows, columns = codes.shape
    group = columns // scales.shape[1]
    assert group % 32 == 0, f"XNNPACK's kernels take groups of a multiple of 32, not {group}"
    narrow = scales.astype(ml_dtypes.bfloat16)
    assert np.array_equal(narrow.astype(np.float32), scales), "scales that bf16 does not hold"
    keys = constants.add_weight(pack_codes(codes)), constants.add_weight(narrow.tobytes())
    return Weight(rows, columns, group, *keys)


def pack_codes(codes: Codes) -> bytes:
    shifted = (codes + 8).astype(np.uint8)
    return (shifted[:, ::2] | shifted[:, 1::2] << 4).tobytes()


def unpack_codes(content: bytes, rows: int, columns: int) -> Codes:
    """What `pack_codes` packed."""
    packed = np.frombuffer(content, np.uint8).reshape(rows, columns // 2)
    found = np.empty((rows, columns), np.int8)
    found[:, ::2], found[:, 1::2] = (packed & 15).astype(np.int8) - 8, (packed >> 4).astype(np.int8) - 8
    return found


def equal_row(count: int) -> Float32:
    """[1, count] whose product with a vector is the vector's mean."""
    return np.full((1, count), 1 / count, np.float32)


class Graph:
    """Built value by value; `payload` is what the delegate takes."""

    def __init__(self, tokens: int, constants: Constants) -> None:
        """`tokens` is the most there can be in one call."""
        self._tokens, self._constants = tokens, constants
        self._graph = schema.XNNGraph("0", [], [], 0, [], [], [schema.ConstantDataOffset(0, 0)])
        self._dynamics: dict[int, Value] = {}
        self.inputs: list[tuple[int, ...]] = []
        """Shapes."""
        self.keys: list[str] = []
        """Of the constants that the graph reads."""

    def input(self, *shape: int) -> Value:
        value = self._value(shape)
        self._external(value, XNN_VALUE_FLAG_EXTERNAL_INPUT)
        self._graph.input_ids.append(value.id)
        self.inputs.append(shape)
        return value

    def payload(self, outputs: Sequence[Value]) -> bytes:
        """The graph with its outputs, serialized."""
        for value in outputs:
            self._external(value, XNN_VALUE_FLAG_EXTERNAL_OUTPUT)
            self._graph.output_ids.append(value.id)
        return bytes(serialize_xnnpack_binary(self._graph, bytearray()))

    def constant(self, values: Float32) -> Value:
        content = np.ascontiguousarray(values, np.float32).tobytes()
        return self._value(values.shape, constant=self._read(self._constants.add(content), len(content)))

    def quantized_linear(self, x: Value, weight: Weight, bias: Float32 | None = None) -> Value:
        """x times the weight's transpose. Each row of x becomes int8, with a scale and a zero that are found as the
        model runs; every product with x shares them.
        """
        assert x.shape[-1] == weight.columns, f"{x.shape} does not fit {weight.columns} columns"
        dynamic = self._dynamic(x)
        codes = self._read(weight.codes_key, weight.rows * weight.columns // 2)
        count = weight.rows * (weight.columns // weight.group)
        scales = self._read(weight.scales_key, 2 * count)
        quantization = schema.PerChannelGroupQuant(
            scale=[], channel_dim=0, group_size=weight.group, scale_buffer_idx=scales, num_scales=count
        )
        shape, kind = (weight.rows, weight.columns), schema.XNNDatatype.xnn_datatype_qbint4
        matrix = self._value(shape, kind, quantization, codes)
        return self._product(dynamic, matrix, bias, x.shape, weight.rows)

    def plain_linear(self, x: Value, matrix: Float32) -> Value:
        """x times the transpose of a float32 matrix."""
        return self._product(x, self.constant(matrix), None, x.shape, matrix.shape[0])

    def norm(self, x: Value, weight: Float32, epsilon: float) -> Value:
        """RMSNorm over the last dimension; the mean is a product in float32 with a row of equal weights."""
        count = x.shape[-1]
        mean = self.plain_linear(self.multiply(x, x), equal_row(count))
        shifted = self.add(mean, self._number(epsilon))
        inverse = self._unary(schema.XNNReciprocalSquareRoot, shifted)
        return self.multiply(self.multiply(x, inverse), self.constant(weight))

    def add(self, left: Value, right: Value) -> Value:
        return self._binary(schema.XNNAdd, left, right)

    def multiply(self, left: Value, right: Value) -> Value:
        return self._binary(schema.XNNMultiply, left, right)

    def silu(self, x: Value) -> Value:
        return self.multiply(x, self._unary(schema.XNNSigmoid, x))

    def gelu_tanh(self, x: Value) -> Value:
        root = math.sqrt(2 / math.pi)
        factor = self.add(self.multiply(self.multiply(x, x), self._number(0.044715 * root)), self._number(root))
        turned = self.add(self._unary(schema.XNNTanh, self.multiply(x, factor)), self._number(1.0))
        return self.multiply(self.multiply(x, self._number(0.5)), turned)

    def reshape(self, x: Value, *shape: int) -> Value:
        out = self._value(shape)
        self._node(schema.XNNStaticReshape(len(shape), list(shape), x.id, out.id, 0))
        return out

    def slice_last(self, x: Value, start: int, stop: int) -> Value:
        """Elements of the last dimension."""
        offsets = [0] * (len(x.shape) - 1) + [start]
        sizes = [*x.shape[:-1], stop - start]
        out = self._value((*x.shape[:-1], stop - start))
        self._node(schema.XNNStaticSlice(len(sizes), offsets, sizes, x.id, out.id, 0))
        return out

    def concatenate_last(self, parts: Sequence[Value]) -> Value:
        kinds = {2: schema.XNNConcatenate2, 3: schema.XNNConcatenate3}
        first = parts[0].shape
        out = self._value((*first[:-1], sum(part.shape[-1] for part in parts)))
        ids = [part.id for part in parts] + [XNN_INVALID_VALUE_ID] * (_MOST_INPUTS_OF_CAT - len(parts))
        self._node(
            kinds[len(parts)](
                axis=len(first) - 1,
                **{f"input{i}_id": id_ for i, id_ in enumerate(ids, start=1)},
                output_id=out.id,
                flags=0,
            )
        )
        return out

    def _number(self, value: float) -> Value:
        return self.constant(np.array([value], np.float32))

    def _dynamic(self, x: Value) -> Value:
        if x.id not in self._dynamics:
            quantization = schema.PerTokenDynamicQuant(num_nonbatch_dims=1)
            narrow = self._value(x.shape, schema.XNNDatatype.xnn_datatype_qdint8, quantization)
            self._node(schema.XNNConvert(x.id, narrow.id, 0))
            self._dynamics[x.id] = narrow
        return self._dynamics[x.id]

    def _product(self, x: Value, matrix: Value, bias: Float32 | None, shape: tuple[int, ...], columns: int) -> Value:
        bias_id = XNN_INVALID_VALUE_ID if bias is None else self.constant(bias).id
        out = self._value((*shape[:-1], columns))
        self._node(schema.XNNFullyConnected(x.id, matrix.id, bias_id, out.id, 0))
        return out

    def _unary(self, kind: type[schema.XNNNode1x1], x: Value) -> Value:
        out = self._value(x.shape)
        self._node(kind(x.id, out.id, 0))
        return out

    def _binary(self, kind: type[schema.XNNNode2x1], left: Value, right: Value) -> Value:
        rank = max(len(left.shape), len(right.shape))
        pairs = zip(*((1,) * (rank - len(one.shape)) + one.shape for one in (left, right)), strict=True)
        out = self._value(tuple(b if a == 1 else a for a, b in pairs))
        self._node(kind(left.id, right.id, out.id, 0))
        return out

    def _value(
        self,
        shape: Sequence[int],
        kind: schema.XNNDatatype = schema.XNNDatatype.xnn_datatype_fp32,
        quantization: schema.XNNQuantParams | None = None,
        constant: int = 0,
    ) -> Value:
        id_, dims = len(self._graph.xvalues), [self._tokens if extent == TOKENS else extent for extent in shape]
        tensor = schema.XNNTensorValue(kind, len(dims), dims, constant, XNN_INVALID_VALUE_ID, 0, id_)
        held = tensor if quantization is None else schema.XNNQuantizedTensorValue(tensor, quantization)
        self._graph.xvalues.append(schema.XValue(held))
        return Value(id_, tuple(shape))

    def _external(self, value: Value, flag: int) -> None:
        tensor = self._graph.xvalues[value.id].xvalue_union
        assert isinstance(tensor, schema.XNNTensorValue)
        tensor.external_id, tensor.flags = self._graph.num_externs, flag
        self._graph.num_externs += 1

    def _read(self, key: str, size: int) -> int:
        """The index of a constant in this graph."""
        self.keys.append(key)
        self._graph.constant_data.append(schema.ConstantDataOffset(_NOT_INLINE, size, key))
        return len(self._graph.constant_data) - 1

    def _node(self, node: schema.XNodeUnion) -> None:
        self._graph.xnodes.append(schema.XNode(node, _NO_HANDLE))
