"""Write a quantized checkpoint, whichever method makes its codes.

    with quantized_checkpoint(merged, scheme, decisions, out, advance, folds) as writer:
        writer.replace(norm, values)                                      every norm that `folds` names
        writer.write(name, method, codes, scales)                         every quantized tensor

Tensors come in any order, each whole or by blocks of its rows in their order; a norm comes before
the matrices that are folded into it. What the decisions keep is copied from the merged checkpoint.
Left without an error, the folder is complete: weights, table, config.json and side files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.dtypes import NUMPY, Float32
from slmc.checkpoint.folders import copy_side_files, write_json
from slmc.checkpoint.packed import formats, packed_name, scale_name, shape_name
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.checkpoint.writer import CheckpointWriter, TensorFormat
from slmc.config_json import read_config
from slmc.console import Advance
from slmc.imported import CONFIG_KEY
from slmc.names import Bits, MethodName, Scheme
from slmc.quant import disk
from slmc.quant.decisions import Decision
from slmc.quant.distance import Distance, column_scales
from slmc.quant.imported import merged_reader
from slmc.quant.packing import Codes, pack
from slmc.quant.schemes import are_scales, dequantize
from slmc.quant.table import QuantizationTable, TensorRow, write_table

FOLDED = "a norm, with column scales folded in"
"""Why a norm that was replaced is kept unquantized."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


@contextmanager
def quantized_checkpoint(
    merged: MergedCheckpoint,
    scheme: Scheme,
    decisions: Sequence[Decision],
    out: Path,
    advance: Advance,
    folds: Mapping[str, str] = _NOTHING,
) -> Iterator[QuantizedWriter]:
    """A writer into the empty folder `out`. `advance` counts weights.

    `scheme` is the one that most tensors have. `folds` tells, by the name of a matrix, the norm that
    scales of its columns are folded into. Raises CheckpointError for weights that are not finite.
    """
    bits = disk.packed_bits(decision.scheme for decision in decisions)
    with merged_reader(merged) as reader:
        replaced = set(folds.values())
        stored = [one for decision in decisions for one in _formats(decision, bits, reader, replaced)]
        with CheckpointWriter(out, stored) as files:
            writer = QuantizedWriter(reader, files, decisions, bits, folds, advance)
            yield writer
            rows = writer.finish()
    tied = merged.architecture.tied
    table = QuantizationTable(scheme=scheme.name, group_size=scheme.group_size, tied=tied, tensors=tuple(rows))
    write_table(out, table)
    config = read_config(merged.folder)
    config[CONFIG_KEY] = disk.quantization_config(table)
    write_json(out / "config.json", config)
    copy_side_files(merged.folder, out)


def _formats(decision: Decision, bits: Bits, reader: TensorReader, replaced: set[str]) -> list[TensorFormat]:
    spec = decision.spec
    if decision.scheme is not None:
        return formats(spec, bits, decision.scheme.group_size, disk.SCALES)
    return [TensorFormat(spec.name, "F32" if spec.name in replaced else reader.dtype(spec.name), spec.shape)]


@dataclass
class _Written:
    """What is known of a tensor so far."""

    rows: int = 0
    method: MethodName | None = None
    distance: Distance = field(default_factory=Distance)


class QuantizedWriter:
    """See the module. Wrong codes, scales or names are a method's bug and raise ValueError or KeyError."""

    merged: TensorReader
    """What is quantized."""

    def __init__(
        self,
        merged: TensorReader,
        files: CheckpointWriter,
        decisions: Sequence[Decision],
        bits: Bits,
        folds: Mapping[str, str],
        advance: Advance,
    ) -> None:
        self.merged = merged
        self._files = files
        self._decisions = {decision.spec.name: decision for decision in decisions}
        self._bits: Bits = bits
        self._folds = folds
        self._advance = advance
        self._columns: dict[str, Float32] = {}
        """Of each replaced norm, what it multiplied the columns behind it by."""
        self._written = {decision.spec.name: _Written() for decision in decisions}

    def write(
        self, name: str, method: MethodName, codes: Codes, scales: Float32, weights: Float32 | None = None
    ) -> None:
        """Append rows to a quantized tensor: int8 [rows, columns], and float32 [rows, columns / group], bf16 each.

        `weights` are the merged tensor's same rows, where the caller has them at hand.
        """
        scheme = self._decisions[name].scheme
        if scheme is None:
            raise ValueError(f"{name} is not quantized")
        _check(name, scheme, codes, scales)
        written = self._written[name]
        start, written.rows, written.method = written.rows, written.rows + len(codes), method
        self._files.write(packed_name(name), pack(codes, self._bits))
        self._files.write(scale_name(name), scales)
        found = dequantize(codes, scales)
        if name in self._folds:
            found /= self._columns[self._folds[name]]
        wanted = self.merged.rows(name, start, written.rows) if weights is None else weights
        written.distance.add(wanted, found)
        self._advance(codes.size)

    def replace(self, name: str, values: Float32) -> None:
        """Give a norm the values [columns] that it has once scales of the columns behind it are folded into it."""
        before = self.merged.array(name)
        if values.shape != before.shape or ((values == 0) != (before == 0)).any():
            raise ValueError(f"{name} {before.shape} can't become this by scales: {values.shape}, or its zeros differ")
        self._columns[name] = scales = column_scales(before, values)
        if not ((scales > 0) & (scales < np.inf)).all():
            raise ValueError(f"{name} is divided by scales that are not all positive and finite")
        self._files.write(name, values)
        self._advance(values.size)

    def finish(self) -> list[TensorRow]:
        """Copy what is kept; a row for every tensor."""
        for name, decision in self._decisions.items():
            if decision.scheme is not None:
                self._files.write(shape_name(name), np.array(decision.spec.shape, np.int64))
            elif name not in self._columns:
                self._copy(name)
        return [self._row(decision) for decision in self._decisions.values()]

    def _copy(self, name: str) -> None:
        """Byte for byte."""
        for start, stop in row_blocks(self.merged.shape(name)):
            block = self.merged.stored_rows(name, start, stop)
            self._files.write(name, block)
            self._advance(block.size)

    def _row(self, decision: Decision) -> TensorRow:
        spec, scheme = decision.spec, decision.scheme
        written, replaced = self._written[spec.name], spec.name in self._columns
        return TensorRow(
            name=spec.name,
            role=spec.role,
            shape=spec.shape,
            scheme=None if scheme is None else scheme.name,
            kept=FOLDED if replaced else decision.kept,
            method=written.method,
            folded=self._folds.get(spec.name),
            bits_per_weight=self._plain_bits(spec.name) if scheme is None else scheme.bits_per_weight,
            relative_error=None if scheme is None else float(f"{written.distance.relative:.4g}"),
            gain=None if decision.gain is None else float(f"{decision.gain:.4g}"),
        )

    def _plain_bits(self, name: str) -> int:
        """Of a tensor that is not quantized; a norm that was replaced is float32."""
        return 32 if name in self._columns else 8 * NUMPY[self.merged.dtype(name)].itemsize


def _check(name: str, scheme: Scheme, codes: Codes, scales: Float32) -> None:
    if scales.dtype != np.float32 or scales.shape != (len(codes), codes.shape[1] // scheme.group_size):
        raise ValueError(f"{name}: {scales.dtype} {scales.shape} are no scales for codes {codes.shape}")
    if codes.size and (codes.min() < scheme.lowest or codes.max() > scheme.highest):
        raise ValueError(f"{name}: codes outside {scheme.name}")
    if not are_scales(scales):
        raise ValueError(f"{name}: a scale that is not a positive bf16")
