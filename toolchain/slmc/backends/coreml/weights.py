"""Weights of a package, written one by one: each lies once in weight.bin, whatever functions use it.

coremltools keeps a program's constants in memory as unpacked arrays, and writes them when it is exported. Here each is
written as soon as it is met; the program gets a constant of the same shape and type that takes no memory, and the
exporter is told where the real one lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.backend.mil.helper import create_file_value_tensor, types_to_proto_primitive
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - as everywhere
from coremltools.converters.mil.mil import Var, types
from coremltools.libmilstoragepython import _BlobStorageWriter
from numpy.typing import NDArray

from slmc.backends.coreml.palettes import palette
from slmc.checkpoint.dtypes import Float32
from slmc.errors import CompileError
from slmc.models.projections import Projection
from slmc.quant.fp16 import narrow_scales
from slmc.quant.reader import QuantizedReader

FILE = "weight.bin"
PALETTE_ROWS = 32
"""That share a palette."""
PALETTE_BITS = 6
"""Four would change answers: what was quantized in groups of 32 columns is quantized again in blocks of rows."""
_COLOURS = 1 << PALETTE_BITS
_LARGEST = float(np.finfo(np.float16).max)
IN_PLACE = 10
"""Elements below which a constant stays in the program itself, as coremltools has it."""


class Weights:
    """Constants of one program."""

    def __init__(self, reader: QuantizedReader, folder: Path) -> None:
        self.reader = reader
        self.path = folder / FILE
        self.writer = _BlobStorageWriter(str(self.path))
        self.rounded = 0
        """Scales that fp16 does not hold."""
        self.places: dict[str, Any] = {}
        """Of each constant that lies in the file, by its key: what the exporter writes in its place."""

    def matrix(self, matrix: Projection) -> Var:
        """In the function that is being built: fp16 [rows, columns]."""
        key = _name(matrix)
        if not self.reader.is_quantized(matrix.source):
            return self.constant(self.reader.plain(matrix.source)[matrix.start : matrix.stop], key)
        bits = self.reader.scheme(matrix.source).bits
        kind = types.int4 if bits == 4 else types.int8
        shape, groups = self._shapes(matrix)
        if key not in self.places:
            codes, scales = matrix.read(self.reader)
            write = self.writer.write_int4_data if bits == 4 else self.writer.write_int8_data
            self._write(key, kind, codes, write)
            narrow = narrow_scales(scales)
            if not np.isfinite(narrow).all():
                raise CompileError(f"{key} has scales above fp16's {_LARGEST:g}", todo="add it to quantization.keep")
            self.rounded += int(np.count_nonzero(narrow.astype(np.float32) != scales))
            self._write(f"{key} scales", types.fp16, narrow.view(np.uint16), self.writer.write_fp16_data)
        product = mb.constexpr_blockwise_shift_scale(
            data=_nothing(shape, types.np_int4_dtype if bits == 4 else np.dtype(np.int8)),
            scale=_nothing(groups, np.dtype(np.float16)),
        )
        product.op.data.op.weight_id, product.op.scale.op.weight_id = key, f"{key} scales"
        return product

    def convolution(self, matrix: Projection) -> Var:
        """In the function that is being built: fp16 [rows, columns, 1, 1], each PALETTE_ROWS rows by 64 values."""
        key, (rows, columns) = f"{_name(matrix)} palette", self._shapes(matrix)[0]
        if key not in self.places:
            centres, places = palettes(self.reader, matrix)
            narrow = centres.astype(np.float16).view(np.uint16)
            self._write(key, types.uint6, places.reshape(rows, columns, 1, 1), self.writer.write_uint6_data)
            self._write(
                f"{key} values", types.fp16, narrow.reshape(-1, 1, 1, 1, _COLOURS, 1), self.writer.write_fp16_data
            )
        product = mb.constexpr_lut_to_dense(
            indices=_nothing((rows, columns, 1, 1), types.np_uint6_dtype),
            lut=_nothing((rows // PALETTE_ROWS, 1, 1, 1, _COLOURS, 1), np.dtype(np.float16)),
        )
        product.op.indices.op.weight_id, product.op.lut.op.weight_id = key, f"{key} values"
        return product

    def constant(self, values: Float32, key: str | None = None) -> Var:
        """fp16."""
        narrow = np.ascontiguousarray(values, np.float32).astype(np.float16)
        if narrow.size < IN_PLACE:
            return mb.const(val=narrow)
        key = key or hashlib.sha256(narrow.tobytes() + str(narrow.shape).encode()).hexdigest()
        if key not in self.places:
            self._write(key, types.fp16, narrow.view(np.uint16), self.writer.write_fp16_data)
        constant = mb.const(val=_nothing(narrow.shape, narrow.dtype))
        constant.op.weight_id = key
        return constant

    def _shapes(self, matrix: Projection) -> tuple[tuple[int, int], tuple[int, int]]:
        columns = next(s.shape[1] for s in self.reader.architecture.tensors() if s.name == matrix.source)
        return (matrix.rows, columns), (matrix.rows, columns // self.reader.group_size)

    def _write(self, key: str, kind: Any, values: NDArray[Any], write: Callable[[NDArray[Any]], int]) -> None:
        offset = write(np.ascontiguousarray(values).reshape(-1))
        self.places[key] = create_file_value_tensor(
            f"@model_path/weights/{FILE}", offset, values.shape, types_to_proto_primitive(kind)
        )


def palettes(reader: QuantizedReader, matrix: Projection) -> tuple[Float32, NDArray[np.uint8]]:
    """Values float32 [rows / PALETTE_ROWS, 64] and each weight's place among its rows', uint8 [rows, columns]."""
    codes, scales = matrix.read(reader)
    weights = codes * scales.repeat(reader.group_size, axis=1)
    made = [palette(weights[first : first + PALETTE_ROWS], _COLOURS) for first in range(0, matrix.rows, PALETTE_ROWS)]
    return np.stack([centres for centres, _ in made]), np.concatenate([places for _, places in made])


def _name(matrix: Projection) -> str:
    return f"{matrix.source}[{matrix.start}:{matrix.stop}]"


def _nothing(shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), kind), shape)
