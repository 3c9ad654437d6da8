"""Round a matrix so that its errors make good for one another.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) goes column by column: the columns behind take up what each
rounding did to the output. With a metric for the output, rows take up one another's errors as well, as in
YAQA (Tseng et al. 2025, arXiv:2505.22988): for errors E the loss is then |Lᵀ E R|², R Rᵀ being the moments
of the inputs and L Lᵀ the curvature of the task's loss at the output.

The scale of a group is searched when its first column is reached, on the weights as they are then, and
is a bf16 before any of them is rounded. Columns go in their storage order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slmc.names import Scheme
from slmc.quant.rtn import quantize_rows

ROWS = 16
"""Rounded at once where rows take up one another's errors: those of one block can't."""


@dataclass(frozen=True)
class Rounded:
    """A matrix [rows, columns] in codes, with what led to them."""

    codes: torch.Tensor
    """float32 [rows, columns], whole numbers."""
    scales: torch.Tensor
    """float32 [rows, columns / group], each a positive bf16."""
    wanted: torch.Tensor
    """float32 [rows, columns]: each weight, errors of those before made good, just before it was rounded."""

    def weights(self) -> torch.Tensor:
        groups = self.codes.reshape(*self.scales.shape, -1)
        return (groups * self.scales[:, :, None]).flatten(1)


def gptq(weights: torch.Tensor, factor: torch.Tensor, scheme: Scheme) -> Rounded:
    """Codes of `weights` float32 [rows, columns] for the least w H wᵀ of their errors w.

    `factor` is H's `inverse_factor`.
    """
    (rows, columns), group = weights.shape, scheme.group_size
    wanted, codes = weights.clone(), torch.empty_like(weights)
    scales = torch.empty(rows, columns // group)
    for start in range(0, columns, group):
        inside = slice(start, start + group)
        scale = _scales(wanted[:, inside], scheme)
        errors = _round_group(wanted[:, inside], codes[:, inside], scale, factor[inside, inside], scheme)
        scales[:, start // group] = scale
        wanted[:, start + group :] -= errors @ factor[inside, start + group :]
    return Rounded(codes, scales, wanted)


def two_sided(weights: torch.Tensor, factor: torch.Tensor, scheme: Scheme, lower: torch.Tensor) -> Rounded:
    """As `gptq`, but for the least |Lᵀ E R|²: `lower` is L [rows, rows], the `metric` of the output.

    From the last rows up: with C = L_behind L_block⁻¹ a block aims at its weights less Cᵀ times the errors behind it.
    """
    blocks: list[Rounded] = []
    errors = torch.zeros_like(weights)
    for start in reversed(range(0, len(weights), ROWS)):
        block, behind = slice(start, start + ROWS), slice(start + ROWS, len(weights))
        taken = torch.linalg.solve_triangular(lower[block, block], lower[behind, block], upper=False, left=False)
        rounded = gptq(weights[block] - taken.T @ errors[behind], factor, scheme)
        errors[block] = rounded.weights() - weights[block]
        blocks.insert(0, rounded)
    return Rounded(
        torch.cat([block.codes for block in blocks]),
        torch.cat([block.scales for block in blocks]),
        torch.cat([block.wanted for block in blocks]),
    )


def _round_group(
    wanted: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor, scheme: Scheme
) -> torch.Tensor:
    """Fill in the codes of one group; its errors [rows, group], each over its column's diagonal in the factor."""
    # Columns side by side in memory: a column of a whole matrix would touch a cache line a row.
    turned, rounded = wanted.T.contiguous(), torch.empty_like(codes.T, memory_format=torch.contiguous_format)
    errors = torch.empty_like(turned)
    for column in range(len(turned)):
        rounded[column] = torch.clamp(torch.round(turned[column] / scale), scheme.lowest, scheme.highest)
        errors[column] = (turned[column] - rounded[column] * scale) / factor[column, column]
        turned[column + 1 :].addr_(factor[column, column + 1 :], errors[column], alpha=-1)
    wanted.copy_(turned.T)
    codes.copy_(rounded.T)
    return errors.T


def _scales(group: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    _, scales = quantize_rows(group.contiguous().numpy(), scheme)
    return torch.from_numpy(scales)[:, 0]
