"""Scales of columns that a norm takes over: norm / s before, W s behind, and the product is the same.

A column whose inputs are large costs most, and gets finer steps where its weights are made larger (as
AWQ does, Lin et al. 2023, arXiv:2306.00978). s is a power of each input's root mean square; which power
is tried on some of the rows, by the error that rounding then leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


Matrix = tuple[torch.Tensor, Scheme]
"""float32 [rows, columns], and how it is to be rounded."""


def column_scales(moments: torch.Tensor, matrices: Sequence[Matrix]) -> torch.Tensor | None:
    """s float32 [columns] for matrices that read inputs of these moments; None for all ones.

    Each matrix counts by what it loses beside what it lost before. A column that never fires keeps a scale of 1.
    """
    candidates = [_power(moments.diagonal(), power) for power in POWERS]
    losses = [_losses(moments, matrices, scales) for scales in candidates]
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


def _losses(moments: torch.Tensor, matrices: Sequence[Matrix], scales: torch.Tensor) -> list[float]:
    """Of each matrix the squared error of the outputs that rounding leaves, over inputs and some of the rows."""
    factor, found = inverse_factor(moments / scales[:, None] / scales), []
    for weights, scheme in matrices:
        sampled = weights[:: max(1, len(weights) // ROWS)]
        error = gptq(sampled * scales, factor, scheme).weights() / scales - sampled
        found.append(float(((error @ moments) * error).sum()))
    return found
