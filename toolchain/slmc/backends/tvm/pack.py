"""A quantized checkpoint into the native library's weight file: its own integers and scales, laid out anew.

A matrix of the decoder (see `slmc.models.decoder`) is one tensor; norms, biases and rope tables are float32.
Rows, and a bias with them, are padded with zeros to whole tiles of the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from slmc.architecture import TensorSpec
from slmc.backends.tvm import layout
from slmc.backends.tvm.weights import NO_ROPE, Config, Gate, Kind, Layer, Tensor, WeightsWriter
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.decoder import Parameter, decoder_parameters, rope_tables
from slmc.models.projections import stored_vector
from slmc.names import Activations, Bits
from slmc.quant.reader import QuantizedReader

_BLOCK_BYTES = 4 << 20
"""About how much of a matrix is unpacked at once."""


def write_weights(
    reader: QuantizedReader, context: int, activations: Activations, path: Path, advance: Advance
) -> None:
    """Pack every parameter, a few megabytes at a time; `advance` counts weights.

    Raises CompileError naming a matrix that is kept unquantized, or parts of one matrix with different bits.
    """
    parameters = list(decoder_parameters(reader.architecture))
    kinds = {one.name: _kind(reader, one) for one in parameters}
    tables = rope_tensors(reader, context)
    tensors = [Tensor(name, Kind.FLOAT32, *table.shape) for name, table in tables.items()]
    tensors += [_tensor(one, kinds[one.name]) for one in parameters]
    config = _config(reader, context, activations)
    with WeightsWriter(path, config, _layers(reader), tensors) as writer:
        for name, table in tables.items():
            writer.floats(name, table)
        for parameter in parameters:
            if parameter.is_matrix:
                _write_matrix(reader, parameter, writer)
            else:
                _write_vector(reader, parameter, writer)
            advance(math.prod(parameter.shape))


def rope_tensors(reader: QuantizedReader, context: int) -> dict[str, layout.Float32]:
    """Cosines and sines, float32 [context, rotary_dim / 2], by the tensor's name."""
    pairs = enumerate(rope_tables(reader.architecture, context))
    return {
        f"ropes.{i}.{name}": table for i, pair in pairs for name, table in zip(("cosines", "sines"), pair, strict=True)
    }


def _config(reader: QuantizedReader, context: int, activations: Activations) -> Config:
    a = reader.architecture
    return Config(
        vocab_size=a.vocab_size,
        hidden_size=a.hidden_size,
        intermediate_size=a.intermediate_size,
        heads=a.heads,
        kv_heads=a.kv_heads,
        head_dim=a.head_dim,
        rotary_dim=a.rotary_dim,
        context=context,
        group=reader.group_size,
        gate={"silu": Gate.SILU, "gelu_tanh": Gate.GELU_TANH}[a.gate],
        activations={"int8": 0, "float32": 1}[activations],
        ropes=len(a.ropes),
        rms_eps=a.rms_eps,
        embedding_scale=a.embedding_scale,
        attention_scale=a.attention_scale,
    )


def _layers(reader: QuantizedReader) -> list[Layer]:
    return [
        Layer(NO_ROPE if one.rope is None else one.rope, one.window or 0) for one in reader.architecture.layer_kinds
    ]


def _tensor(parameter: Parameter, kind: Kind) -> Tensor:
    if parameter.is_matrix:
        rows, columns = parameter.shape
        return Tensor(parameter.name, kind, layout.padded_rows(rows), columns)
    return Tensor(parameter.name, kind, 1, _vector_size(parameter))


def _kind(reader: QuantizedReader, parameter: Parameter) -> Kind:
    if not parameter.is_matrix:
        return Kind.FLOAT32
    return Kind.INT4 if _bits(reader, parameter) == 4 else Kind.INT8


def _bits(reader: QuantizedReader, matrix: Parameter) -> Bits:
    for source in matrix.sources:
        if not reader.is_quantized(source.name):
            raise CompileError(
                f"{source.name} is kept unquantized, which the tvm backend can't compile",
                where=reader.folder,
                expected="every embedding, head and linear in 4 or 8 bits",
                todo="take its name out of the recipe's quantization.keep",
            )
    bits: Mapping[str, Bits] = {source.name: reader.scheme(source.name).bits for source in matrix.sources}
    if len(set(bits.values())) > 1:
        raise CompileError(
            f"{', '.join(f'{name} has {count} bits' for name, count in bits.items())}",
            where=reader.folder,
            expected="the same bits for tensors that the tvm backend computes as one matrix",
            todo="quantize them all to 4 bits, or all to 8",
        )
    return next(iter(bits.values()))


def _vector_size(parameter: Parameter) -> int:
    """A norm as it is, a bias with its matrix's padding."""
    size = parameter.shape[0]
    return layout.padded_rows(size) if parameter.sources[0].role == "bias" else size


def _write_vector(reader: QuantizedReader, parameter: Parameter, writer: WeightsWriter) -> None:
    vector = np.concatenate([stored_vector(reader, source) for source in parameter.sources])
    writer.floats(parameter.name, np.pad(vector, (0, _vector_size(parameter) - len(vector))))


def _write_matrix(reader: QuantizedReader, matrix: Parameter, writer: WeightsWriter) -> None:
    rows, columns = matrix.shape
    for source in matrix.sources:
        for start, stop in _row_blocks(source):
            codes, scales = reader.codes(source.name, start, stop), reader.scales(source.name, start, stop)
            _write_rows(matrix.name, codes, scales, writer)
    padding = layout.padded_rows(rows) - -(-rows // layout.LANES) * layout.LANES
    zeros = np.zeros((padding, columns // reader.group_size), np.float32)
    _write_rows(matrix.name, np.zeros((padding, columns), np.int8), zeros, writer)


def _write_rows(name: str, codes: layout.Codes, scales: layout.Float32, writer: WeightsWriter) -> None:
    """Rows that follow those written before; the last ones are filled up to a block."""
    padding = ((0, -len(codes) % layout.LANES), (0, 0))
    writer.rows(name, np.pad(codes, padding), np.pad(scales, padding))


def _row_blocks(source: TensorSpec) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a matrix, each but the last in whole blocks."""
    rows, columns = source.shape
    step = max(_BLOCK_BYTES // columns // layout.LANES, 1) * layout.LANES
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
