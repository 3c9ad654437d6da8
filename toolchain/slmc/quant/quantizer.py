"""A merged checkpoint to the quantized one by rounding to nearest, streamed by blocks of rows.

So is a checkpoint that others quantized: its codes enter as they are, and what it left unquantized is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.dtypes import rounded_to_bfloat16
from slmc.checkpoint.reader import row_blocks
from slmc.console import Advance
from slmc.imported import imported_schemes
from slmc.names import Bits, Scheme
from slmc.quant.decisions import decide
from slmc.quant.imported import ImportedReader
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import dequantize
from slmc.quant.writer import QuantizedWriter, quantized_checkpoint


def quantize(
    merged: MergedCheckpoint,
    scheme: Scheme,
    keep: tuple[str, ...],
    out: Path,
    advance: Advance,
    bits: Mapping[str, Bits] = MappingProxyType({}),
) -> None:
    """Write the quantized checkpoint into the empty folder `out`. `advance` counts weights.

    `bits` names tensors whose codes have others than the scheme's. Tensors that were quantized before
    are not quantized again. Raises QuantizationError for a pattern of `keep` that matches nothing, or a
    tensor that the scheme can't hold; CheckpointError for weights that are not finite.
    """
    imported = imported_schemes(merged.folder, merged.architecture)
    bits = {**bits, **{name: before.bits for name, before in imported.items()}}
    decisions = decide(merged.architecture, scheme, keep, bits)
    with quantized_checkpoint(merged, scheme, decisions, out, advance) as writer:
        for decision in decisions:
            if decision.spec.name in imported:
                import_tensor(writer, decision.spec.name)
            elif decision.scheme is not None:
                round_tensor(writer, decision.spec.name, decision.scheme)


def import_tensor(writer: QuantizedWriter, name: str) -> None:
    """Codes as they are; scales too, but for those that only a wider type holds, which are rounded to bf16."""
    reader = writer.merged
    assert isinstance(reader, ImportedReader)
    for start, stop in row_blocks(reader.shape(name)):
        codes, scales = reader.codes(name, start, stop), reader.scales(name, start, stop)
        writer.write(name, "imported", codes, rounded_to_bfloat16(scales), dequantize(codes, scales))


def round_tensor(writer: QuantizedWriter, name: str, scheme: Scheme) -> None:
    """One whole tensor by rounding to nearest."""
    for start, stop in row_blocks(writer.merged.shape(name)):
        weights = writer.merged.rows(name, start, stop)
        writer.write(name, "rtn", *quantize_rows(weights, scheme), weights)
