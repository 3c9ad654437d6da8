"""Hold a quantized checkpoint against the merged one: is each tensor as near as its table says?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from slmc.architecture import TensorSpec
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.quant.quantizer import sum_of_squares
from slmc.quant.reader import QuantizedReader
from slmc.quant.schemes import dequantize

TOLERANCE = 0.01
"""Of the relative error, which the table gives to four digits: sums in another order differ by far less."""


def read_back(merged: MergedCheckpoint, quantized: QuantizedCheckpoint) -> Iterator[tuple[str, bool]]:
    """Each tensor, with whether it is as far from the merged one as the table tells; kept ones must be equal."""
    with TensorReader(merged.folder) as weights, QuantizedReader(quantized.folder) as reader:
        told = {row.name: row.relative_error or 0.0 for row in reader.table.tensors}
        for spec in quantized.architecture.tensors():
            found = _relative_error(weights, reader, spec)
            yield spec.name, math.isclose(found, told[spec.name], rel_tol=TOLERANCE, abs_tol=1e-12)


def _relative_error(weights: TensorReader, reader: QuantizedReader, spec: TensorSpec) -> float:
    """Squared error over squared weights; 0 for a tensor of zeros that stayed so."""
    error = power = 0.0
    for start, stop in row_blocks(spec.shape):
        wanted = weights.rows(spec.name, start, stop)
        error += sum_of_squares(wanted - _rows(reader, spec.name, start, stop))
        power += sum_of_squares(wanted)
    return error / power if power else error


def _rows(reader: QuantizedReader, name: str, start: int, stop: int) -> Float32:
    if not reader.is_quantized(name):
        return reader.plain(name)[start:stop]
    return dequantize(reader.codes(name, start, stop), reader.scales(name, start, stop))
