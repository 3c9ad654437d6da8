"""Round to nearest, with the scale of each group searched for the least squared error.

For each of a few clips, the codes that the clip gives decide the best scale for just those codes
(least squares, then rounded to bf16); the scale with the least squared error wins, and the weights
are rounded to it. On Gaussian weights in groups of 32 the error is 0.5% above an exhaustive
search's, and 21% below that of the plain scale, max / 7. With 8 bits it is 18% below that of
max / 127: there the search is mostly for a bf16 that happens to fit, smaller or larger.

Only element-wise operations and sums in a fixed order: the same bytes on every CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slmc.checkpoint.dtypes import Float32, rounded_to_bfloat16
from slmc.names import Bits, Scheme
from slmc.quant.packing import Codes

_CLIPS: Mapping[Bits, Float32] = {
    4: np.linspace(7.0, 10.0, 10, dtype=np.float32),
    8: np.linspace(122.0, 130.0, 10, dtype=np.float32),
}
"""The largest magnitude of a group in steps of its scale. A negative extreme has one more to go to."""
_BLOCK_WEIGHTS = 1 << 16
"""A block's three float32 arrays stay in a core's second-level cache, or nearly."""
_SMALLEST_SCALE = np.float32(2.0**-126)
"""The smallest normal float32, of which bf16 holds the upper half."""


def quantize_rows(weights: Float32, scheme: Scheme) -> tuple[Codes, Float32]:
    """Codes int8 [rows, columns] of the scheme and positive bf16 scales as float32 [rows, columns / group].

    A group of zeros gets codes 0 and scale 1. Raises ValueError for columns that the group does not
    divide, or a weight that is not finite.
    """
    (rows, columns), group = weights.shape, scheme.group_size
    if weights.dtype != np.float32 or columns % group:
        raise ValueError(f"{weights.dtype} {weights.shape} is not float32 [rows, a multiple of {group}]")
    groups = weights.reshape(-1, group)
    codes = np.empty(groups.shape, np.int8)
    scales = np.empty(len(groups), np.float32)
    step = max(_BLOCK_WEIGHTS // group, 1)
    for start in range(0, len(groups), step):
        block = slice(start, start + step)
        scales[block] = _quantize_block(groups[block], codes[block], scheme)
    return codes.reshape(rows, columns), scales.reshape(rows, columns // group)


@dataclass(frozen=True)
class _Block:
    """Groups side by side, [group, count], so that numpy's inner loops run along all of them."""

    weights: Float32
    """Divided by their group's largest magnitude, so that squares neither overflow nor vanish."""
    codes: Float32
    """What the last rounding gave."""
    products: Float32
    """Scratch."""
    scheme: Scheme

    def round_to(self, per_scale: Float32) -> None:
        """Codes of the weights times `per_scale`, one factor a group."""
        np.multiply(self.weights, per_scale, out=self.codes)
        np.rint(self.codes, out=self.codes)
        np.clip(self.codes, self.scheme.lowest, self.scheme.highest, out=self.codes)

    def dot_codes(self, other: Float32) -> Float32:
        """Each group's sum of `other` times its codes. Adding up along the first axis goes in order, unlike einsum."""
        np.multiply(other, self.codes, out=self.products)
        sums: Float32 = np.add.reduce(self.products, axis=0)
        return sums


def _quantize_block(groups: Float32, codes: Codes, scheme: Scheme) -> Float32:
    """Fill `codes` for groups [count, group]; return their scales [count]."""
    turned = groups.T.copy(order="C")
    largest = np.maximum(turned.max(axis=0), -turned.min(axis=0))
    if not np.isfinite(largest).all():
        raise ValueError("a weight is not finite")
    zero = largest == 0
    largest[zero] = 1
    turned /= largest
    block = _Block(turned, np.empty_like(turned), np.empty_like(turned), scheme)
    scale = _search(block, largest)
    block.round_to(largest / scale)
    codes[...] = block.codes.T
    scale[zero] = 1
    return scale


def _search(block: _Block, largest: Float32) -> Float32:
    """The bf16 scale of each group with the least squared error among the clips' candidates."""
    clips = _CLIPS[block.scheme.bits]
    best_scale = _as_scale(largest / clips[0])
    least = np.full(len(largest), np.inf, np.float32)
    for clip in clips:
        block.round_to(np.full_like(largest, clip))
        products = block.dot_codes(block.weights)
        # At least one, for a group of zeros; any other has a code at its largest here.
        squares: Float32 = np.maximum(block.dot_codes(block.codes), 1)
        scale = _as_scale(largest * (products / squares))
        steps = scale / largest
        # The squared error, less the weights' own squares, which no scale changes.
        error = steps * (steps * squares - 2 * products)
        better = error < least
        np.copyto(best_scale, scale, where=better)
        np.copyto(least, error, where=better)
    return best_scale


def _as_scale(values: Float32) -> Float32:
    """Rounded to bf16, and never zero."""
    return np.maximum(rounded_to_bfloat16(values), _SMALLEST_SCALE)
