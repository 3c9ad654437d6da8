"""The tensors that a compiled decoder reads, in the order of its functions, and their packing.

A matrix of the decoder becomes `<name>.codes` and `<name>.scales`, as `layout` tells; norms and biases are
float32; the rope tables go along. Rows, and a bias with them, are padded with zeros to whole tiles of
the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slmc.architecture import Architecture, TensorSpec
from slmc.backends.tvm import layout
from slmc.checkpoint.writer import SafetensorsWriter, TensorFormat
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.decoder import Parameter, decoder_parameters, rope_tables
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


def stored_tensors(architecture: Architecture, group: int, context: int) -> list[TensorFormat]:
    """What `weights.safetensors` holds, in the order of the functions' parameters."""
    table = (padded_context(context), architecture.head_dim // 2)
    formats = [TensorFormat(COSINES, "F32", table), TensorFormat(SINES, "F32", table)]
    for parameter in decoder_parameters(architecture):
        formats += _formats(parameter, group)
    return formats


def write_weights(reader: QuantizedReader, context: int, path: Path, advance: Advance) -> None:
    """Pack every parameter, a few megabytes at a time; `advance` counts weights.

    Each matrix is quantized, as `check_quantized` has found.
    """
    architecture = reader.architecture
    with SafetensorsWriter(path, stored_tensors(architecture, reader.group_size, context)) as writer:
        for name, table in zip((COSINES, SINES), rope_tables(architecture, padded_context(context)), strict=True):
            writer.write(name, table)
        for parameter in decoder_parameters(architecture):
            if parameter.is_matrix:
                _write_matrix(reader, parameter, writer)
            else:
                _write_vector(reader, parameter, writer)
            advance(math.prod(parameter.shape))


def check_quantized(reader: QuantizedReader) -> None:
    """Raises CompileError naming a matrix that the checkpoint keeps unquantized."""
    for parameter in decoder_parameters(reader.architecture):
        for source in parameter.sources:
            if parameter.is_matrix and not reader.is_quantized(source.name):
                raise CompileError(
                    f"{source.name} is kept unquantized, which the tvm backend can't compile",
                    where=reader.folder,
                    expected="every embedding, head and linear in 4 bits",
                    todo="take its name out of the recipe's quantization.keep",
                )


def _formats(parameter: Parameter, group: int) -> list[TensorFormat]:
    if not parameter.is_matrix:
        return [TensorFormat(parameter.name, "F32", (_vector_size(parameter),))]
    rows, columns = parameter.shape
    blocks = layout.padded_rows(rows) // layout.LANES
    codes = (blocks, columns // layout.BLOCK, layout.BLOCK_BYTES)
    return [
        TensorFormat(codes_name(parameter.name), "U8", codes),
        TensorFormat(scales_name(parameter.name), "BF16", (blocks, columns // group, layout.LANES)),
    ]


def _vector_size(parameter: Parameter) -> int:
    """A norm as it is, a bias with its matrix's padding."""
    size = parameter.shape[0]
    return layout.padded_rows(size) if parameter.sources[0].role == "bias" else size


def _write_vector(reader: QuantizedReader, parameter: Parameter, writer: SafetensorsWriter) -> None:
    vector = np.concatenate([reader.plain(source.name) for source in parameter.sources])
    writer.write(parameter.name, np.pad(vector, (0, _vector_size(parameter) - len(vector))))


def _write_matrix(reader: QuantizedReader, parameter: Parameter, writer: SafetensorsWriter) -> None:
    for source in parameter.sources:
        for start, stop in _row_blocks(source):
            codes, scales = reader.codes(source.name, start, stop), reader.scales(source.name, start, stop)
            _write_rows(parameter.name, codes, scales, writer)
    rows, columns = parameter.shape
    written = -(-rows // layout.LANES) * layout.LANES
    padding = layout.padded_rows(rows) - written
    _write_rows(
        parameter.name,
        np.zeros((padding, columns), np.int8),
        np.zeros((padding, columns // reader.group_size), np.float32),
        writer,
    )


def _write_rows(
    name: str, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], writer: SafetensorsWriter
) -> None:
    """Rows that follow those written before; the last ones are filled up to a block."""
    missing = -len(codes) % layout.LANES
    padding = ((0, missing), (0, 0))
    writer.write(codes_name(name), layout.pack_codes(np.pad(codes, padding)))
    writer.write(scales_name(name), layout.pack_scales(np.pad(scales, padding)))


def _row_blocks(source: TensorSpec) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a matrix, each but the last in whole blocks."""
    rows, columns = source.shape
    step = max(_BLOCK_BYTES // columns // layout.LANES, 1) * layout.LANES
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
