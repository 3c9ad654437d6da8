"""The tensors that a compiled decoder reads, in the order of its functions, and their packing.

A matrix of the decoder becomes `<name>.codes` and `<name>.scales`, as `layout` tells; norms and biases are
float32; the rope tables go along. Rows, and a bias with them, are padded with zeros to whole tiles of
the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from slmc.architecture import Architecture, TensorSpec
from slmc.backends.tvm import layout
from slmc.checkpoint.writer import SafetensorsWriter, TensorFormat
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.decoder import Parameter, decoder_parameters, rope_tables
from slmc.names import Bits
from slmc.quant.reader import QuantizedReader

COSINES, SINES = "rope.cosines", "rope.sines"
_BLOCK_BYTES = 4 << 20
"""About how much of a matrix is unpacked at once."""


def codes_name(name: str) -> str:
    return name + ".codes"


def scales_name(name: str) -> str:
    return name + ".scales"


def padded_context(context: int) -> int:
    """Positions of the caches and rope tables: whole vectors of positions."""
    return -(-context // layout.LANES) * layout.LANES


def packed_shape(matrix: Parameter, group: int, bits: Bits) -> layout.Shape:
    rows, columns = matrix.shape
    return layout.Shape(layout.padded_rows(rows), columns, group, bits)


def packed_shapes(reader: QuantizedReader) -> dict[str, layout.Shape]:
    """Of each matrix, by its parameter's name.

    Raises CompileError naming a matrix that is kept unquantized, or parts of one matrix with different bits.
    """
    matrices = [parameter for parameter in decoder_parameters(reader.architecture) if parameter.is_matrix]
    return {matrix.name: packed_shape(matrix, reader.group_size, _bits(reader, matrix)) for matrix in matrices}


def stored_tensors(architecture: Architecture, shapes: Mapping[str, layout.Shape], context: int) -> list[TensorFormat]:
    """What `weights.safetensors` holds, in the order of the functions' parameters."""
    table = (padded_context(context), architecture.head_dim // 2)
    formats = [TensorFormat(COSINES, "F32", table), TensorFormat(SINES, "F32", table)]
    for parameter in decoder_parameters(architecture):
        if parameter.is_matrix:
            shape = shapes[parameter.name]
            formats.append(TensorFormat(codes_name(parameter.name), "U8", shape.codes))
            formats.append(TensorFormat(scales_name(parameter.name), "BF16", shape.scales))
        else:
            formats.append(TensorFormat(parameter.name, "F32", (_vector_size(parameter),)))
    return formats


def write_weights(
    reader: QuantizedReader, shapes: Mapping[str, layout.Shape], context: int, path: Path, advance: Advance
) -> None:
    """Pack every parameter, a few megabytes at a time; `advance` counts weights.

    `shapes` are the checkpoint's own, from `packed_shapes`.
    """
    architecture = reader.architecture
    with SafetensorsWriter(path, stored_tensors(architecture, shapes, context)) as writer:
        for name, table in zip((COSINES, SINES), rope_tables(architecture, padded_context(context)), strict=True):
            writer.write(name, table)
        for parameter in decoder_parameters(architecture):
            if parameter.is_matrix:
                _write_matrix(reader, parameter, shapes[parameter.name], writer)
            else:
                _write_vector(reader, parameter, writer)
            advance(math.prod(parameter.shape))


def _bits(reader: QuantizedReader, matrix: Parameter) -> Bits:
    for source in matrix.sources:
        if not reader.is_quantized(source.name):
            raise CompileError(
                f"{source.name} is kept unquantized, which the tvm backend can't compile",
                where=reader.folder,
                expected="every embedding, head and linear in 4 or 8 bits",
                todo="take its name out of the recipe's quantization.keep",
            )
    bits = {source.name: reader.scheme(source.name).bits for source in matrix.sources}
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


def _write_vector(reader: QuantizedReader, parameter: Parameter, writer: SafetensorsWriter) -> None:
    vector = np.concatenate([reader.plain(source.name) for source in parameter.sources])
    writer.write(parameter.name, np.pad(vector, (0, _vector_size(parameter) - len(vector))))


def _write_matrix(reader: QuantizedReader, matrix: Parameter, shape: layout.Shape, writer: SafetensorsWriter) -> None:
    for source in matrix.sources:
        for start, stop in _row_blocks(source):
            codes, scales = reader.codes(source.name, start, stop), reader.scales(source.name, start, stop)
            _write_rows(matrix.name, codes, scales, shape.bits, writer)
    written = -(-matrix.shape[0] // layout.LANES) * layout.LANES
    padding = shape.rows - written
    codes = np.zeros((padding, shape.columns), np.int8)
    scales = np.zeros((padding, shape.columns // shape.group), np.float32)
    _write_rows(matrix.name, codes, scales, shape.bits, writer)


def _write_rows(name: str, codes: layout.Codes, scales: layout.Float32, bits: Bits, writer: SafetensorsWriter) -> None:
    """Rows that follow those written before; the last ones are filled up to a block."""
    missing = -len(codes) % layout.LANES
    padding = ((0, missing), (0, 0))
    writer.write(codes_name(name), layout.pack_codes(np.pad(codes, padding), bits))
    writer.write(scales_name(name), layout.pack_scales(np.pad(scales, padding)))


def _row_blocks(source: TensorSpec) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a matrix, each but the last in whole blocks."""
    rows, columns = source.shape
    step = max(_BLOCK_BYTES // columns // layout.LANES, 1) * layout.LANES
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
