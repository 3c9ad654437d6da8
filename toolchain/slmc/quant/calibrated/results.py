"""What becomes of matrices and norms, in its final form and on disk.

<name>.codes and <name>.scales for a matrix, <name>.norm for a norm that scales of columns were folded into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from slmc.quant.calibrated.files import read_tensors, write_tensors
from slmc.quant.calibrated.gptq import Rounded

CODES, SCALES, NORM = ".codes", ".scales", ".norm"


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
        codes, scales = self.codes[wanted].float(), self.scales[wanted]
        groups = codes.reshape(*scales.shape, -1) * scales[..., None]
        return groups.reshape(codes.shape)


@dataclass(frozen=True)
class Results:
    """By the tensors' names."""

    matrices: Mapping[str, Matrix]
    norms: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Folded ones, float32 [hidden]."""

    def save(self, path: Path) -> None:
        """The file appears when it is complete."""
        tensors = {name + NORM: norm for name, norm in self.norms.items()}
        for name, matrix in self.matrices.items():
            tensors[name + CODES], tensors[name + SCALES] = matrix.codes, matrix.scales
        write_tensors(path, tensors)

    @classmethod
    def load(cls, path: Path) -> Results:
        tensors = read_tensors(path)
        names = [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]
        return cls(
            matrices={name: Matrix(tensors[name + CODES], tensors[name + SCALES]) for name in names},
            norms={name.removesuffix(NORM): norm for name, norm in tensors.items() if name.endswith(NORM)},
        )
