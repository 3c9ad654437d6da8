"""Read a weight file back and hold it against the quantized checkpoint, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.tvm import layout
from slmc.backends.tvm.pack import rope_tensors
from slmc.backends.tvm.weights import WeightsReader
from slmc.checkpoint.reader import row_blocks
from slmc.models.compiled import WEIGHTS
from slmc.models.decoder import Parameter, decoder_parameters
from slmc.models.projections import stored_vector
from slmc.quant.reader import QuantizedReader


def read_back(model: QuantizedCheckpoint, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each tensor of the checkpoint, and of the rope tables, with whether the artifact holds just that."""
    packed = WeightsReader(artifact / WEIGHTS)
    with QuantizedReader(model.folder) as wanted:
        for name, table in rope_tensors(wanted, packed.config.context).items():
            yield name, np.array_equal(packed.floats(name), table)
        for parameter in decoder_parameters(wanted.architecture):
            yield from _compare(wanted, packed, parameter)


def _compare(wanted: QuantizedReader, packed: WeightsReader, parameter: Parameter) -> Iterator[tuple[str, bool]]:
    """The sources of one parameter lie one after another."""
    first = 0
    for source in parameter.sources:
        rows = source.shape[0]
        if not parameter.is_matrix:
            found = packed.floats(parameter.name)[0, first : first + rows]
            same = np.array_equal(found, stored_vector(wanted, source))
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
    wanted: QuantizedReader, packed: WeightsReader, name: str, source: str, first: int, block: tuple[int, int]
) -> bool:
    start, stop = block
    codes, scales = packed.rows(name, first + start, first + stop)
    return np.array_equal(codes, wanted.codes(source, start, stop)) and np.array_equal(
        scales, wanted.scales(source, start, stop)
    )
