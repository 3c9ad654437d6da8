"""`quantization.json`: what became of every tensor, and how far it is from what it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc.architecture import Role
from slmc.checkpoint.folders import read_json_object
from slmc.errors import CheckpointError
from slmc.names import MethodName, SchemeName
from slmc.strict import Strict, parse

TABLE_FILE = "quantization.json"


class TensorRow(Strict):
    name: str
    role: Role
    shape: tuple[int, ...]
    scheme: SchemeName | None
    """None for a tensor that is not quantized."""
    kept: str | None
    """Why it is kept; None for a quantized one."""
    method: MethodName | None
    """Whose codes and scales these are; None for a kept tensor."""
    folded: str | None
    """The norm that its columns' scales were folded into: they are the merged norm over this one."""
    bits_per_weight: float
    relative_error: float | None
    """Squared error over squared weights, column scales taken back, to four digits; None for a kept tensor."""
    gain: float | None = None
    """Nats a token at the answers that 8 bits rather than 4 are estimated to save, for all tensors that must share
    their bits with this one; None where no limit was spent."""


class QuantizationTable(Strict):
    """One row a tensor, in the architecture's order."""

    slmc_quantization: Literal[1] = 1
    scheme: SchemeName
    group_size: Annotated[int, Field(gt=0)]
    tied: bool
    """The head is the embedding's own weight, quantized once."""
    tensors: tuple[TensorRow, ...]

    @property
    def bits_per_weight(self) -> float:
        """Mean over all weights, quantized or kept, scales included."""
        sizes = [math.prod(row.shape) for row in self.tensors]
        return sum(size * row.bits_per_weight for size, row in zip(sizes, self.tensors, strict=True)) / sum(sizes)


def write_table(folder: Path, table: QuantizationTable) -> None:
    (folder / TABLE_FILE).write_text(table.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_table(folder: Path) -> QuantizationTable:
    """Raises CheckpointError naming the file and the key."""
    path = folder / TABLE_FILE
    return parse(QuantizationTable, read_json_object(path, CheckpointError), path, CheckpointError)
