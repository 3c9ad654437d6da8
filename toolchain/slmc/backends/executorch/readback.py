"""Read a .pte file back and hold it against the quantized checkpoint: its bytes, and what each graph does with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.models.exported import PROGRAM, read_exported


def read_back(model: QuantizedCheckpoint, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each tensor of the checkpoint, and the ropes, with whether the program uses just that."""
    exported = read_exported(artifact)
    wanted = [str(model.folder), str(artifact / PROGRAM), str(exported.context), exported.delegation.delegate]
    for told in child.lines("executorch.reread", wanted):
        yield told["name"], told["same"]
