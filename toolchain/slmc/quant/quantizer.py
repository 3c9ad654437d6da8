"""A merged checkpoint to the quantized one that every backend re-packs, streamed by blocks of rows."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmc.architecture import Architecture, TensorSpec
from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.dtypes import NUMPY, Float32
from slmc.checkpoint.folders import copy_side_files, read_config, write_json
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.checkpoint.writer import CheckpointWriter, TensorFormat
from slmc.console import Advance
from slmc.errors import QuantizationError, did_you_mean
from slmc.quant import disk
from slmc.quant.packing import pack
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import SCHEMES, Scheme, dequantize
from slmc.quant.table import QuantizationTable, TensorRow, write_table

_QUANTIZED_ROLES = ("embedding", "head", "linear")


@dataclass(frozen=True)
class Decision:
    """A tensor, and why it is kept; None where it is quantized."""

    spec: TensorSpec
    kept: str | None


def quantize(merged: MergedCheckpoint, scheme: Scheme, keep: tuple[str, ...], out: Path, advance: Advance) -> None:
    """Write the quantized checkpoint into the empty folder `out`. `advance` counts weights.

    Raises QuantizationError for a pattern of `keep` that matches nothing, or a tensor that the
    scheme can't hold; CheckpointError for weights that are not finite.
    """
    decisions = decide(merged.architecture, scheme, keep)
    with TensorReader(merged.folder) as reader:
        formats = [tensor for decision in decisions for tensor in _formats(decision, scheme, reader)]
        with CheckpointWriter(out, formats) as writer:
            stream = _Stream(reader, writer, scheme, advance)
            rows = [stream.copy(one) if one.kept else stream.quantize(one.spec) for one in decisions]
    write_table(
        out,
        QuantizationTable(
            scheme=scheme.name,
            group_size=scheme.group_size,
            tied=merged.architecture.tied,
            tensors=tuple(rows),
        ),
    )
    config = read_config(merged.folder)
    config[disk.CONFIG_KEY] = disk.quantization_config(scheme, _kept_modules(decisions, merged.architecture))
    write_json(out / "config.json", config)
    copy_side_files(merged.folder, out)


def decide(architecture: Architecture, scheme: Scheme, keep: Sequence[str]) -> list[Decision]:
    """What is quantized: linears, embedding and head, but for those that a pattern of `keep` names."""
    specs = list(architecture.tensors())
    for pattern in keep:
        if not any(fnmatch.fnmatchcase(spec.name, pattern) for spec in specs):
            raise QuantizationError(
                f"no tensor matches {pattern!r}",
                where="quantization.keep",
                expected="a tensor's name or a shell pattern for some",
                todo=did_you_mean(pattern, [spec.name for spec in specs if spec.role in _QUANTIZED_ROLES]),
            )
    decisions = [Decision(spec, _reason_to_keep(spec, keep)) for spec in specs]
    for decision in decisions:
        if decision.kept is None and decision.spec.shape[1] % scheme.group_size:
            raise _does_not_divide(decision.spec, scheme)
    return decisions


def _reason_to_keep(spec: TensorSpec, keep: Sequence[str]) -> str | None:
    if spec.role not in _QUANTIZED_ROLES:
        return f"a {spec.role}"
    pattern = next((pattern for pattern in keep if fnmatch.fnmatchcase(spec.name, pattern)), None)
    return None if pattern is None else f"the recipe keeps {pattern}"


def _does_not_divide(spec: TensorSpec, scheme: Scheme) -> QuantizationError:
    fitting = [other.name for other in SCHEMES.values() if spec.shape[1] % other.group_size == 0]
    return QuantizationError(
        f"{spec.name} has {spec.shape[1]} columns, which groups of {scheme.group_size} do not divide",
        where="quantization.scheme",
        expected=f"a multiple of {scheme.group_size}",
        todo=f"use {fitting[-1]}" if fitting else f"add {spec.name!r} to quantization.keep",
    )


def _formats(decision: Decision, scheme: Scheme, reader: TensorReader) -> list[TensorFormat]:
    spec = decision.spec
    if decision.kept is None:
        return disk.formats(spec, scheme.group_size)
    return [TensorFormat(spec.name, reader.dtype(spec.name), spec.shape)]


def _kept_modules(decisions: Sequence[Decision], architecture: Architecture) -> list[str]:
    """Modules that compressed-tensors would take for quantized ones. A tied head goes with its embedding."""
    kept = [one.spec for one in decisions if one.kept and one.spec.role in _QUANTIZED_ROLES]
    modules = [spec.name.removesuffix(".weight") for spec in kept]
    if architecture.tied and any(spec.role == "embedding" for spec in kept):
        modules.append("lm_head")
    return modules


@dataclass(frozen=True)
class _Stream:
    """Tensors on their way from one folder to the other, a block of rows in memory."""

    reader: TensorReader
    writer: CheckpointWriter
    scheme: Scheme
    advance: Advance

    def copy(self, decision: Decision) -> TensorRow:
        """Byte for byte."""
        spec = decision.spec
        for start, stop in row_blocks(spec.shape):
            block = self.reader.stored_rows(spec.name, start, stop)
            self.writer.write(spec.name, block)
            self.advance(block.size)
        return TensorRow(
            name=spec.name,
            role=spec.role,
            shape=spec.shape,
            scheme=None,
            kept=decision.kept,
            bits_per_weight=8 * NUMPY[self.reader.dtype(spec.name)].itemsize,
            relative_error=None,
        )

    def quantize(self, spec: TensorSpec) -> TensorRow:
        error = power = 0.0
        for start, stop in row_blocks(spec.shape):
            weights = self.reader.rows(spec.name, start, stop)
            codes, scales = quantize_rows(weights, self.scheme.group_size)
            self.writer.write(disk.packed_name(spec.name), pack(codes))
            self.writer.write(disk.scale_name(spec.name), scales)
            power += sum_of_squares(weights)
            weights -= dequantize(codes, scales)
            error += sum_of_squares(weights)
            self.advance(weights.size)
        self.writer.write(disk.shape_name(spec.name), np.array(spec.shape, np.int64))
        return TensorRow(
            name=spec.name,
            role=spec.role,
            shape=spec.shape,
            scheme=self.scheme.name,
            kept=None,
            bits_per_weight=self.scheme.bits_per_weight,
            relative_error=float(f"{error / power if power else 0.0:.4g}"),
        )


def sum_of_squares(values: Float32) -> float:
    """Of a block's elements; numpy adds up pairwise, so float32 serves."""
    return float(np.square(values).sum())
