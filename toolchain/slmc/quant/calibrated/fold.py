"""Scales of columns that a norm takes over: norm / s before, W s behind, and the product is the same.

A column whose inputs are large costs most, and gets finer steps where its weights are made larger (as
AWQ does, Lin et al. 2023, arXiv:2306.00978). s is a power of each input's root mean square; which power
is tried on some of the rows, by the error that rounding then leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from slmc.names import Scheme
from slmc.quant.calibrated.gptq import gptq
from slmc.quant.calibrated.moments import inverse_factor

POWERS = (0.0, 0.125, 0.25, 0.375, 0.5)
"""Of the root mean square; the first leaves all as it is."""
ROWS = 128
"""Of each matrix, evenly spread, that a power is tried on."""
RANGE = 64.0
"""No scale is further than this from the mean one, up or down."""


@dataclass(frozen=True)
class Read:
    """Matrices behind the norm whose inputs count alike."""

    moments: torch.Tensor
    """Of what they read, float32 [columns, columns]."""
    matrices: Sequence[tuple[torch.Tensor, Scheme]]
    """float32 [rows, columns] each."""


def column_scales(groups: Sequence[Read]) -> torch.Tensor | None:
    """s float32 [columns]; None for all ones. A column that never fires keeps a scale of 1."""
    diagonals = [group.moments.diagonal() for group in groups]
    squares = torch.stack([diagonal / (float(diagonal.mean()) or 1.0) for diagonal in diagonals]).sum(0)
    candidates = [_power(squares, power) for power in POWERS]
    losses = [_losses(groups, scales) for scales in candidates]
    totals = [sum(loss / (plain or 1.0) for loss, plain in zip(tried, losses[0], strict=True)) for tried in losses]
    best = min(range(len(POWERS)), key=totals.__getitem__)
    return candidates[best] if best else None


def _power(squares: torch.Tensor, power: float) -> torch.Tensor:
    fires = squares > 0
    scales = torch.ones_like(squares)
    if fires.any():
        logs = squares[fires].log() * (power / 2)
        limit = math.log(RANGE)
        scales[fires] = (logs - logs.mean()).clamp(-limit, limit).exp()
    return scales


def _losses(groups: Sequence[Read], scales: torch.Tensor) -> list[float]:
    """Of each matrix the squared error that rounding leaves in its outputs, over inputs and some of the rows."""
    found = []
    for group in groups:
        factor = inverse_factor(group.moments / scales[:, None] / scales)
        for weights, scheme in group.matrices:
            sampled = weights[:: max(1, len(weights) // ROWS)]
            error = gptq(sampled * scales, factor, scheme).weights() / scales - sampled
            found.append(float(((error @ group.moments) * error).sum()))
    return found
