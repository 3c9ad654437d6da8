"""Read MLC's weight files back, by TVM's own reader, and hold them against the quantized checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.models.mlc import read_mlc


def read_back(model: QuantizedCheckpoint, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each tensor by its name there, with whether its values are the checkpoint's."""
    made = read_mlc(artifact)
    for told in child.lines("mlc.reread", [str(model.folder), str(artifact / made.model_id), made.quantization]):
        yield told["name"], told["same"]
