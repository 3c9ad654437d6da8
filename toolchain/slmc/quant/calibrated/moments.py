"""Second moments: what an error in each column of a matrix costs, and together with which, and so for its rows."""

from __future__ import annotations

import torch

from slmc.errors import QuantizationError

STRIPS = 8
"""A symmetric product is made in so many strips of its columns, each only up to the diagonal: 9/16 of the work."""
DAMPING = 0.01
"""Of the mean of the diagonal, added to it: the usual first try of GPTQ."""
MOST_DAMPING = 1e3
RIDGE = 0.2
"""Of the same mean, where weights are shifted to make good what was lost before: less would follow chance."""
FLAT = 0.3
"""Part of a curvature's metric that counts all directions alike, since the curvature is only a sample's."""


class Moments:
    """H = sum of w x xᵀ over positions with weights w, float32 [columns, columns]; with `cross` also
    C = sum of w x (x' - x)ᵀ, where x' is what the unquantized model has at the same position.
    """

    def __init__(self, columns: int, *, cross: bool = False) -> None:
        self._second = torch.zeros(columns, columns)
        self._cross = torch.zeros(columns, columns) if cross else None

    def add(self, inputs: torch.Tensor, weights: torch.Tensor, unquantized: torch.Tensor | None = None) -> None:
        """Inputs float32 [..., columns] with weights [...]."""
        columns = inputs.shape[-1]
        there = weights.flatten() > 0
        x, w = inputs.reshape(-1, columns)[there], weights.flatten()[there]
        weighted = x * w[:, None]
        step = -(-columns // STRIPS)
        for start in range(0, columns, step):
            stop = min(start + step, columns)
            self._second[start:stop, :stop].addmm_(weighted[:, start:stop].T, x[:, :stop])
        if self._cross is not None:
            assert unquantized is not None
            self._cross.addmm_(weighted.T, unquantized.reshape(-1, columns)[there] - x)

    def sum(self) -> torch.Tensor:
        """H. Raises QuantizationError where an activation was not finite."""
        lower = self._second.tril_()
        found = lower + lower.tril(-1).T
        if not torch.isfinite(found).all():
            raise QuantizationError("activations are not finite numbers")
        return found

    def rescale(self, columns: torch.Tensor) -> None:
        """As if every input had been divided by these, float32 [columns]."""
        for moments in (self._second, self._cross):
            if moments is not None:
                moments.div_(columns[:, None]).div_(columns)

    def shifted(self, weights: torch.Tensor) -> torch.Tensor:
        """W + W Cᵀ (H + rI)⁻¹: what of these inputs comes nearest to W of the unquantized ones, by ridge regression."""
        assert self._cross is not None
        ridged = self.sum()
        mean = float(ridged.diagonal().mean())
        if mean == 0:
            return weights
        ridged.diagonal().add_(RIDGE * mean)
        return weights + torch.cholesky_solve(self._cross @ weights.T, torch.linalg.cholesky(ridged)).T


def inverse_factor(moments: torch.Tensor) -> torch.Tensor:
    """Upper U with Uᵀ U = (H + dI)⁻¹, H scaled to a mean diagonal of 1; d grows tenfold until that can be inverted.

    A column that never fires counts as much as the mean: its weights are then simply rounded.
    Raises QuantizationError where no damping helps.
    """
    scaled = moments / (float(moments.diagonal().mean()) or 1.0)
    scaled.diagonal()[scaled.diagonal() == 0] = 1.0
    damping, added = DAMPING, 0.0
    while damping <= MOST_DAMPING:
        scaled.diagonal().add_(damping - added)
        # Turned round, H = R Rᵀ with R upper triangular, and U is its inverse: no other matrix need be inverted.
        lower, failed = torch.linalg.cholesky_ex(scaled.flip(0, 1))
        if not failed:
            identity = torch.eye(len(scaled))
            upper: torch.Tensor = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
            if torch.isfinite(upper).all():
                return upper
        damping, added = 10 * damping, damping
    raise QuantizationError(f"the moments of the inputs can't be inverted, even with a damping of {MOST_DAMPING:g}")


def metric(curvature: torch.Tensor) -> torch.Tensor:
    """Lower L with L Lᵀ the curvature [size, size], scaled to a mean diagonal of 1, and FLAT of the identity."""
    mean = max(float(curvature.diagonal().mean()), float(torch.finfo(torch.float32).tiny))
    mixed = curvature / mean * (1 - FLAT)
    mixed.diagonal().add_(FLAT)
    lower: torch.Tensor = torch.linalg.cholesky(mixed)
    return lower
