"""Scales of columns that a norm takes over: norm / s before, W s behind, and the product is the same.

A column whose inputs are large costs most, and gets finer steps where its weights are made larger (as
AWQ does, Lin et al. 2023, arXiv:2306.00978). s is a power of each input's root mean square; which power
is tried on some of the rows, by the error that rounding then leaves.
"""

from __future__ import annotations

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


def column_scales(moments: torch.Tensor, matrices: Sequence[tuple[torch.Tensor, Scheme]]) -> torch.Tensor | None:
    """s float32 [columns] for matrices float32 [rows, columns] that read inputs of these moments; None for all ones.

    A column that never fires keeps a scale of 1.
    """
    sampled = [(weights[:: max(1, len(weights) // ROWS)], scheme) for weights, scheme in matrices]
    candidates = [_power(moments.diagonal(), power) for power in POWERS]
    losses = [sum(_loss(moments, scales, *one) for one in sampled) for scales in candidates]
    best = min(range(len(POWERS)), key=losses.__getitem__)
    return candidates[best] if best else None


def _power(squares: torch.Tensor, power: float) -> torch.Tensor:
    fires = squares > 0
    scales = torch.ones_like(squares)
    logs = squares[fires].log() * (power / 2)
    limit = torch.tensor(RANGE).log()
    scales[fires] = (logs - logs.mean()).clamp(-limit, limit).exp() if fires.any() else 1.0
    return scales


def _loss(moments: torch.Tensor, scales: torch.Tensor, weights: torch.Tensor, scheme: Scheme) -> float:
    """Squared error of the outputs, added up over inputs and rows."""
    factor = inverse_factor(moments / scales[:, None] / scales)
    error = gptq(weights * scales, factor, scheme).weights() / scales - weights
    return float(((error @ moments) * error).sum())
