"""What a metric's test says of a night."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from slmc.farm.tracks import Point
from slmc.validate.statistics import Interval

Call = Literal["no change", "regression", "improvement", "can't tell"]


@dataclass(frozen=True)
class Found:
    """A change as a metric's test tells it; nights are indices into the track's points."""

    call: Call
    before: int
    """The last night that counted before it."""
    first: int
    size: float
    """Of accuracy in shares, below 0 is worse; of speed in shares of the time, above 0 is slower."""
    interval: Interval


@dataclass(frozen=True)
class Said:
    """Of one night."""

    call: Call
    reason: str
    found: Found | None = None
    """Where a change is told."""


Judge = Callable[[Sequence[Point], Sequence[float], Sequence[str | None]], Iterator[Said]]
"""A metric's test: a track's points, what chance of a false alarm each has, and what its control was."""
