"""Hold a quantized checkpoint against the merged one: is each tensor as near as its table says?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from slmc.architecture import TensorSpec
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.quant.distance import Distance, column_scales
from slmc.quant.imported import merged_reader
from slmc.quant.reader import QuantizedReader
from slmc.quant.schemes import dequantize

TOLERANCE = 0.01
"""Of the relative error, which the table gives to four digits: sums in another order differ by far less."""


def read_back(merged: MergedCheckpoint, quantized: QuantizedCheckpoint) -> Iterator[tuple[str, bool]]:
    """Each tensor, with whether it is as far from the merged one as the table tells; kept ones must be equal.

    A norm that column scales were folded into is none of these: the matrices behind it are compared
    with those scales taken back, and are wrong where the norm is.
    """
    with merged_reader(merged) as weights, QuantizedReader(quantized.folder) as reader:
        told = {row.name: row for row in reader.table.tensors}
        norms = {row.folded for row in told.values()}
        for spec in quantized.architecture.tensors():
            if spec.name not in norms:
                found = _relative_error(weights, reader, spec, told[spec.name].folded)
                wanted = told[spec.name].relative_error or 0.0
                yield spec.name, math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=1e-12)


def _relative_error(weights: TensorReader, reader: QuantizedReader, spec: TensorSpec, norm: str | None) -> float:
    columns = None if norm is None else column_scales(weights.array(norm), reader.plain(norm))
    distance = Distance()
    for start, stop in row_blocks(spec.shape):
        found = _rows(reader, spec.name, start, stop)
        distance.add(weights.rows(spec.name, start, stop), found if columns is None else found / columns)
    return distance.relative


def _rows(reader: QuantizedReader, name: str, start: int, stop: int) -> Float32:
    if not reader.is_quantized(name):
        return reader.plain(name)[start:stop]
    return dequantize(reader.codes(name, start, stop), reader.scales(name, start, stop))
