"""Rounded matrices in their final form, and on disk: `<name>.codes` and `<name>.scales` in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from slmc.quant.calibrated.gptq import Rounded

CODES, SCALES = ".codes", ".scales"


@dataclass(frozen=True)
class Matrix:
    codes: torch.Tensor
    """int8 [rows, columns]."""
    scales: torch.Tensor
    """float32 [rows, columns / group], each a positive bf16."""

    @classmethod
    def of(cls, rounded: Rounded) -> Matrix:
        return cls(rounded.codes.to(torch.int8), rounded.scales)

    @classmethod
    def stacked(cls, parts: list[Matrix]) -> Matrix:
        """Blocks of rows, in their order."""
        return cls(torch.cat([part.codes for part in parts]), torch.cat([part.scales for part in parts]))

    def rows(self, wanted: torch.Tensor) -> torch.Tensor:
        """Some rows as float32 [..., columns], for their indices [...]."""
        scales = self.scales[wanted]
        return (self.codes[wanted].float().unflatten(-1, (scales.shape[-1], -1)) * scales[..., None]).flatten(-2)


def save_matrices(path: Path, matrices: Mapping[str, Matrix]) -> None:
    """The file appears when it is complete."""
    tensors: dict[str, torch.Tensor] = {}
    for name, matrix in matrices.items():
        tensors[name + CODES], tensors[name + SCALES] = matrix.codes, matrix.scales
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.rename(path)


def load_matrices(path: Path) -> dict[str, Matrix]:
    tensors = load_file(path)
    names = [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]
    return {name: Matrix(tensors[name + CODES], tensors[name + SCALES]) for name in names}
