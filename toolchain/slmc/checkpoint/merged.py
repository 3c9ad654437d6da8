"""Write a merged checkpoint: a complete Hugging Face folder, streamed by blocks of rows.

A tied base can come out untied. Where an adapter changes the embedding or the head, the model that
was trained used the base's weight in the other place, and its own merge in peft (0.21) adds the
change in both. Ours keeps what was trained: a head of its own, unless both come out the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from slmc.architecture import EMBEDDING, HEAD
from slmc.artifacts import Checkpoint
from slmc.checkpoint.adapter import adaptable
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.folders import copy_side_files, write_json
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.checkpoint.writer import CheckpointWriter, TensorFormat
from slmc.config_json import read_config
from slmc.console import Advance

_ROUNDING = 2.0**-22
"""Two ways to one float32 sum differ by no more than this, relative to the largest."""


class MergedTensors(Protocol):
    """The base with the adapter in it. Names are the base's, and the head's even where it is tied."""

    def changed(self, name: str) -> bool: ...

    def rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows [start, stop) after the merge."""
        ...


def write_merged(base: Checkpoint, merged: MergedTensors, out: Path, advance: Advance) -> None:
    """Changed tensors as float32, the others byte for byte. `advance` counts weights."""
    specs = adaptable(base.architecture)
    untied = base.architecture.tied and not _still_tied(merged, specs[EMBEDDING].shape)
    if base.architecture.tied and not untied:
        del specs[HEAD]
    with TensorReader(base.folder) as reader:
        formats = [
            TensorFormat(name, "F32" if merged.changed(name) else reader.dtype(stored_name(reader, name)), spec.shape)
            for name, spec in specs.items()
        ]
        with CheckpointWriter(out, formats) as writer:
            for name, spec in specs.items():
                for start, stop in row_blocks(spec.shape):
                    if merged.changed(name):
                        block: npt.NDArray[np.generic] = merged.rows(name, start, stop)
                    else:
                        block = reader.stored_rows(stored_name(reader, name), start, stop)
                    writer.write(name, block)
                    advance(block.size)
    config = read_config(base.folder)
    if untied:
        config["tie_word_embeddings"] = False
    write_json(out / "config.json", config)
    copy_side_files(base.folder, out)


def stored_name(reader: TensorReader, name: str) -> str:
    """Where a base's tensor lies: a tied head that is not stored is the embedding."""
    return EMBEDDING if name == HEAD and name not in reader.names else name


def _still_tied(merged: MergedTensors, shape: tuple[int, ...]) -> bool:
    """Head and embedding come out the same, up to rounding."""
    if not merged.changed(EMBEDDING) and not merged.changed(HEAD):
        return True
    for start, stop in row_blocks(shape):
        embedding, head = merged.rows(EMBEDDING, start, stop), merged.rows(HEAD, start, stop)
        if np.abs(embedding - head).max() > _ROUNDING * np.abs(embedding).max():
            return False
    return True
