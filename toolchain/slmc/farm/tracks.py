"""What all nights say of one series, as it is read for tests and plots: light, for years of many devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from slmc.farm.record import Circumstances, Control, Series


class Evening(NamedTuple):
    """A night without its runs."""

    id: str
    started: datetime
    finished: datetime
    runs: int
    """How many it had."""


class Point(NamedTuple):
    """One night of a series. What was not measured is None."""

    evening: int
    """Index into the history's nights."""
    circumstances: int | None
    """Index into the history's circumstances."""
    outcome: str
    reason: str
    items: int | None
    right: int | None
    asked: str | None
    answered: bytes | None
    """As numpy.packbits has it."""
    verdict: str | None
    """Of the speed: measured or unclear."""
    ratio: float | None
    variation: float | None
    rounds: int | None
    decision_ms_p50: float | None
    decision_ms_p95: float | None
    load_ms: float | None
    peak_memory_bytes: int | None
    memory_limit_bytes: int | None
    device_class: str | None
    control_ms_p50: float | None
    speed_reason: str | None = None


@dataclass(frozen=True)
class Track:
    series: Series
    points: Sequence[Point]
    """In the order of nights."""


@dataclass(frozen=True)
class Past:
    """All of a history, or what was chosen of it."""

    evenings: Sequence[Evening]
    """In the order that they started."""
    circumstances: Sequence[Circumstances]
    tracks: Sequence[Track]
    """By recipe, target, backend, device."""
    controls: Sequence[tuple[int, Control]] = ()
    """Each with its evening, in the order of nights."""
