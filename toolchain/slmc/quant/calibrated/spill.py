"""Activations on disk, a file a batch: a model's worth of them need not fit into memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from slmc.quant.calibrated.files import read_tensors, write_tensors


class Spill:
    """A folder with named tensors for each batch; a batch that is put again replaces what was there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, batch: int, **tensors: torch.Tensor) -> None:
        write_tensors(self._file(batch), tensors)

    def get(self, batch: int) -> dict[str, torch.Tensor]:
        return read_tensors(self._file(batch))

    def _file(self, batch: int) -> Path:
        return self._folder / f"{batch:05}.safetensors"


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which appears under its name when it is whole."""
    partial = folder.with_name(folder.name + ".partial")
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    yield partial
    partial.rename(folder)
