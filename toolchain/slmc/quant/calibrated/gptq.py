"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): round a matrix column by column, each error made good by those behind.

The scale of a group is searched when its first column is reached, on the weights as they are then, and
is a bf16 before any of them is rounded. Columns go in their storage order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slmc.names import Scheme
from slmc.quant.rtn import quantize_rows


@dataclass(frozen=True)
class Rounded:
    """A matrix [rows, columns] in codes, with what led to them."""

    codes: torch.Tensor
    """float32 [rows, columns], whole numbers."""
    scales: torch.Tensor
    """float32 [rows, columns / group], each a positive bf16."""
    wanted: torch.Tensor
    """float32 [rows, columns]: each weight, errors of the columns before made good, just before it was rounded."""

    def weights(self) -> torch.Tensor:
        groups = self.codes.unflatten(1, (self.scales.shape[1], -1))
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
        turned[column + 1 :] -= torch.outer(factor[column, column + 1 :], errors[column])
    wanted.copy_(turned.T)
    codes.copy_(rounded.T)
    return errors.T


def _scales(group: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    _, scales = quantize_rows(group.contiguous().numpy(), scheme)
    return torch.from_numpy(scales)[:, 0]
