"""Named tensors in a file, which appears when it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises OSError for a full disk, as safetensors' own writer does not."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    partial.rename(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
