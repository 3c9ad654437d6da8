"""The weights of a merged checkpoint, also of one that others have quantized."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.packed import packed_name, scale_name
from slmc.checkpoint.reader import TensorReader
from slmc.errors import CheckpointError
from slmc.imported import imported_schemes
from slmc.names import Scheme
from slmc.quant.packing import Codes, unpack
from slmc.quant.schemes import dequantize


def merged_reader(merged: MergedCheckpoint) -> TensorReader:
    """Its tensors by their names in the architecture; packed ones are read as if they were float32."""
    schemes = imported_schemes(merged.folder, merged.architecture)
    return ImportedReader(merged.folder, schemes) if schemes else TensorReader(merged.folder)


class ImportedReader(TensorReader):
    """A packed tensor's rows are its codes times its scales, as they are stored."""

    def __init__(self, place: Path, schemes: Mapping[str, Scheme]) -> None:
        super().__init__(place)
        self._schemes = schemes

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._schemes:
            return super().shape(name)
        rows, words = super().shape(packed_name(name))
        return rows, words * 32 // self._schemes[name].bits

    def rows(self, name: str, start: int, stop: int) -> Float32:
        if name not in self._schemes:
            return super().rows(name, start, stop)
        return dequantize(self.codes(name, start, stop), self.scales(name, start, stop))

    def codes(self, name: str, start: int, stop: int) -> Codes:
        """Rows [start, stop) of a packed tensor: int8 [rows, columns]."""
        packed = self.stored_rows(packed_name(name), start, stop)
        return unpack(packed.view(np.int32), self._schemes[name].bits)

    def scales(self, name: str, start: int, stop: int) -> Float32:
        """Rows [start, stop) of its scales: float32 [rows, columns / group], in their own precision, positive."""
        scales = self.rows(scale_name(name), start, stop)
        if not (scales > 0).all():
            raise CheckpointError(f"{scale_name(name)} holds a scale that is not positive", where=self.place)
        return scales
