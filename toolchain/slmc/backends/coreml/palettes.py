"""Exact k-means of numbers on a line: the palette of least squared error, by dynamic programming.

Sorted values fall into k runs; the best end of a run moves right as the run's own end does, so each of k layers is
found by dividing and conquering: O(k n log n) (Grønlund et al. 2017, arXiv:1701.07204). Of a matrix that was quantized
before there are few different values, each with a count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slmc.checkpoint.dtypes import Float32

Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def palette(values: Float32, size: int) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """Centres float32 [size], ascending, and the index of each value's centre, uint8 in the values' shape.

    Fewer different values than `size` are all kept; the last is then repeated.
    """
    different, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(different) <= size:
        centres = np.concatenate([different, np.repeat(different[-1:], size - len(different))])
        return centres.astype(np.float32), places.reshape(values.shape).astype(np.uint8)
    sums = _Sums.of(different.astype(np.float64), counts)
    starts = _starts(sums, size)
    ends = np.append(starts[1:], len(different))
    centres = sums.mean(starts, ends).astype(np.float32)
    runs = np.repeat(np.arange(size, dtype=np.uint8), ends - starts)
    return centres, runs[places].reshape(values.shape)


@dataclass(frozen=True)
class _Sums:
    """Of the first i values: how many, their sum, and the sum of their squares."""

    count: Float64
    first: Float64
    second: Float64

    @classmethod
    def of(cls, values: Float64, counts: Ints) -> _Sums:
        return cls(*(np.append(0.0, np.cumsum(counts * values**power)) for power in range(3)))

    def error(self, start: Ints, stop: Ints) -> Float64:
        """Squared error of the runs [start, stop) around their means."""
        count, first = self.count[stop] - self.count[start], self.first[stop] - self.first[start]
        return self.second[stop] - self.second[start] - first * first / np.maximum(count, 1)

    def mean(self, start: Ints, stop: Ints) -> Float64:
        mean: Float64 = (self.first[stop] - self.first[start]) / (self.count[stop] - self.count[start])
        return mean


def _starts(sums: _Sums, size: int) -> Ints:
    """Where each of the runs begins."""
    total = len(sums.count) - 1
    stops = np.arange(total + 1)
    least, chosen = sums.error(np.zeros_like(stops), stops), []
    for _ in range(size - 1):
        least, starts = _layer(sums, least)
        chosen.append(starts)
    found, stop = [], total
    for starts in reversed(chosen):
        stop = int(starts[stop])
        found.append(stop)
    return np.array([0, *reversed(found)])


def _layer(sums: _Sums, before: Float64) -> tuple[Float64, Ints]:
    """With one more run: of each stop the least error, and where its last run begins."""
    total = len(before) - 1
    least, starts = np.zeros(total + 1), np.zeros(total + 1, np.int64)
    step = 1 << total.bit_length()
    while step:
        middle = np.arange(step, total + 1, 2 * step) if step <= total else np.array([total])
        low = starts[np.maximum(middle - step, 0)]
        above = middle + step
        high = np.where(above <= total, starts[np.minimum(above, total)], total)
        high = np.where((above <= total) & (high >= low), np.minimum(high, middle), middle)
        least[middle], starts[middle] = _best(sums, before, middle, low, high)
        step //= 2
    return least, starts


def _best(sums: _Sums, before: Float64, stops: Ints, low: Ints, high: Ints) -> tuple[Float64, Ints]:
    """Of each stop, over the starts from `low` to `high`."""
    lengths = high - low + 1
    offsets = np.append(0, np.cumsum(lengths)[:-1])
    which = np.repeat(np.arange(len(stops)), lengths)
    start = np.arange(len(which)) - offsets[which] + low[which]
    error = before[start] + sums.error(start, stops[which])
    least = np.minimum.reduceat(error, offsets)
    first = np.flatnonzero(error == least[which])
    _, unique = np.unique(which[first], return_index=True)
    return least, start[first[unique]]
