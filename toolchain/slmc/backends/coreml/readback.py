"""Read a saved package back and hold it against the quantized checkpoint, in every function that it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.models.packaged import PACKAGE, read_packaged


def read_back(model: QuantizedCheckpoint, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each matrix, vector and rope, with whether every function of the package uses just that."""
    wanted = [str(model.folder), str(artifact / PACKAGE), str(read_packaged(artifact).context)]
    for told in child.lines("coreml.reread", wanted):
        yield told["name"], told["same"]
