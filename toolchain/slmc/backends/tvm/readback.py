"""Read an artifact's weights back and hold them against the quantized checkpoint, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.tvm import layout
from slmc.backends.tvm.parameters import COSINES, SINES, codes_name, scales_name
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.models.compiled import WEIGHTS
from slmc.models.decoder import Parameter, decoder_parameters, rope_tables
from slmc.quant.reader import QuantizedReader


def read_back(model: QuantizedCheckpoint, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each tensor of the checkpoint, and of the rope tables, with whether the artifact holds just that."""
    with QuantizedReader(model.folder) as wanted, TensorReader(artifact / WEIGHTS) as packed:
        positions = packed.shape(COSINES)[0]
        for name, table in zip((COSINES, SINES), rope_tables(wanted.architecture, positions), strict=True):
            yield name, np.array_equal(packed.array(name), table)
        for parameter in decoder_parameters(wanted.architecture):
            yield from _compare(wanted, packed, parameter)


def _compare(wanted: QuantizedReader, packed: TensorReader, parameter: Parameter) -> Iterator[tuple[str, bool]]:
    """The sources of one parameter lie one after another."""
    first = 0
    for source in parameter.sources:
        rows = source.shape[0]
        if not parameter.is_matrix:
            same = np.array_equal(packed.rows(parameter.name, first, first + rows), wanted.plain(source.name))
        else:
            same = all(
                _same_rows(wanted, packed, parameter.name, source.name, first, block) for block in _blocks(source.shape)
            )
        yield source.name, same
        first += rows


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of rows in whole blocks of the layout, but for the last."""
    step = max(stop - start for start, stop in row_blocks(shape)) // layout.LANES * layout.LANES or layout.LANES
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _same_rows(
    wanted: QuantizedReader, packed: TensorReader, name: str, source: str, first: int, block: tuple[int, int]
) -> bool:
    start, stop = block
    codes, scales = _unpacked(packed, name, first + start, first + stop)
    return np.array_equal(codes, wanted.codes(source, start, stop)) and np.array_equal(
        scales, wanted.scales(source, start, stop)
    )


def _unpacked(packed: TensorReader, name: str, start: int, stop: int) -> tuple[layout.Codes, Float32]:
    """Rows [start, stop), of which the first begins a block."""
    blocks = (start // layout.LANES, -(-stop // layout.LANES))
    codes = layout.unpack_codes(packed.stored_rows(codes_name(name), *blocks).view(np.uint8))
    scales = layout.unpack_scales(packed.stored_rows(scales_name(name), *blocks))
    return codes[: stop - start], scales[: stop - start]
