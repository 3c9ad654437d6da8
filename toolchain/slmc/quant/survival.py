"""What rounding leaves of an adapter: the change of each weight after quantization, held against the change before.

With W the base and W + Δ the merged weight, S = Q(W + Δ) - Q(W) is what arrives of Δ. Q(W + Δ) is
what the quantized checkpoint holds, whatever method made it; Q(W) is the base rounded to nearest
in the same scheme. S is Δ and two rounding errors, and tells two things apart:

- its regression on Δ, <S, Δ> / <Δ, Δ>: 1 where the change arrives in its full size, 0 where it is
  gone. A change far below the rounding step still arrives on average, as weights lie anywhere
  between two steps; so this tells a lost change from a small one.
- its correlation with Δ: how far the change stands out from the rounding noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmc.architecture import TensorSpec
from slmc.artifacts import Checkpoint, MergedCheckpoint, QuantizedCheckpoint
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.folders import read_json_object
from slmc.checkpoint.merged import stored_name
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.console import Advance
from slmc.errors import StoreError
from slmc.quant.distance import column_scales
from slmc.quant.reader import QuantizedReader
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import dequantize
from slmc.strict import Strict, parse

FILE = "survival.json"


class Change(Strict):
    """A change Δ of weights W, and what arrives of it, S."""

    size: float | None
    """‖Δ‖ / ‖W‖; None where W is zero."""
    kept: float
    """‖S‖ / ‖Δ‖: 1 for a change that arrives as it is, more with rounding noise."""
    correlation: float
    """<S, Δ> / (‖S‖ ‖Δ‖); 0 where nothing arrives."""
    coefficient: float
    """<S, Δ> / <Δ, Δ>, the least-squares slope of S on Δ through the origin."""
    error: float
    """Its standard error; every weight is one observation."""


class TensorChange(Change):
    name: str
    layer: int | None


class AdapterSurvival(Strict):
    """Every quantized matrix that the adapter changed; a change of what is kept unquantized arrives as it is."""

    whole: Change | None
    """Of all these matrices as one; None where there are none."""
    tensors: tuple[TensorChange, ...]


def measure(
    base: Checkpoint, merged: MergedCheckpoint, quantized: QuantizedCheckpoint, advance: Advance
) -> AdapterSurvival:
    """Tensor by tensor, a block of rows in memory. `advance` counts weights."""
    found: list[tuple[TensorSpec, _Sums]] = []
    with (
        TensorReader(base.folder) as before,
        TensorReader(merged.folder) as after,
        QuantizedReader(quantized.folder) as stored,
    ):
        tensors = _Tensors(before, after, stored, {row.name: row.folded for row in stored.table.tensors})
        for spec in quantized.architecture.tensors():
            if stored.is_quantized(spec.name) and tensors.changed(spec):
                found.append((spec, tensors.sums(spec)))
            advance(spec.size)
    whole = sum((sums for _, sums in found), start=_Sums())
    return AdapterSurvival(
        whole=Change.model_validate(whole.told()) if found else None,
        tensors=tuple(
            TensorChange.model_validate({"name": spec.name, "layer": spec.layer, **sums.told()}) for spec, sums in found
        ),
    )


def write_survival(survival: AdapterSurvival, folder: Path) -> None:
    (folder / FILE).write_text(survival.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_survival(folder: Path) -> AdapterSurvival:
    """Raises StoreError naming the file and the key."""
    path = folder / FILE
    return parse(AdapterSurvival, read_json_object(path, StoreError), path, StoreError)


@dataclass(frozen=True)
class _Sums:
    """Over all weights of one or several matrices, in float64."""

    count: int = 0
    weights: float = 0.0
    """<W, W>."""
    change: float = 0.0
    """<Δ, Δ>."""
    arrived: float = 0.0
    """<S, S>."""
    product: float = 0.0
    """<S, Δ>."""

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count + other.count,
            self.weights + other.weights,
            self.change + other.change,
            self.arrived + other.arrived,
            self.product + other.product,
        )

    def told(self) -> dict[str, float | None]:
        """The fields of a Change."""
        coefficient = self.product / self.change
        residual = max(0.0, self.arrived - coefficient * self.product) / max(self.count - 1, 1)
        return {
            "size": math.sqrt(self.change / self.weights) if self.weights else None,
            "kept": math.sqrt(self.arrived / self.change),
            "correlation": self.product / math.sqrt(self.arrived * self.change) if self.arrived else 0.0,
            "coefficient": coefficient,
            "error": math.sqrt(residual / self.change),
        }


@dataclass(frozen=True)
class _Tensors:
    """The same matrices in the base, in the merged checkpoint, and in the quantized one."""

    before: TensorReader
    after: TensorReader
    stored: QuantizedReader
    folded: Mapping[str, str | None]
    """The norm that scales of a matrix's columns were folded into."""

    def changed(self, spec: TensorSpec) -> bool:
        return any(not np.array_equal(*self._blocks(spec.name, *block)) for block in row_blocks(spec.shape))

    def sums(self, spec: TensorSpec) -> _Sums:
        norm = self.folded[spec.name]
        columns = None if norm is None else column_scales(self.after.array(norm), self.stored.plain(norm))
        blocks = (self._block_sums(spec.name, *block, columns) for block in row_blocks(spec.shape))
        return sum(blocks, start=_Sums())

    def _block_sums(self, name: str, start: int, stop: int, columns: Float32 | None) -> _Sums:
        before, after = self._blocks(name, start, stop)
        change = after - before
        arrived = dequantize(self.stored.codes(name, start, stop), self.stored.scales(name, start, stop))
        if columns is not None:
            arrived /= columns
        arrived -= dequantize(*quantize_rows(before, self.stored.scheme(name)))
        return _Sums(
            count=before.size,
            weights=_dot(before, before),
            change=_dot(change, change),
            arrived=_dot(arrived, arrived),
            product=_dot(arrived, change),
        )

    def _blocks(self, name: str, start: int, stop: int) -> tuple[Float32, Float32]:
        """Rows [start, stop) before and after the merge; a tied base's head is its embedding."""
        before = self.before.rows(stored_name(self.before, name), start, stop)
        return before, self.after.rows(name, start, stop)


def _dot(one: Float32, other: Float32) -> float:
    """Of all elements, in float64: numpy adds up pairwise and in a fixed order, unlike BLAS."""
    return float(np.multiply(one, other, dtype=np.float64).sum())
