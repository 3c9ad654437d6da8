"""Regression or noise? What each night tells of each series, and when it changed.

All tests of a night share one budget of false alarms: of a farm of R runs, each of the two metrics of each run may
raise one with a chance of ALARMS / 2R (Bonferroni), so that a night on which nothing changed raises any with at most
ALARMS. A change is told when nights in a row say so: the second confirms the first. A night that the test can't judge
says "can't tell", with the reason; it never counts as one on which nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from slmc.farm import accuracy_changes, speed_changes
from slmc.farm.judgement import Call, Judge, Said
from slmc.farm.record import Circumstances, Series
from slmc.farm.tracks import Past, Point
from slmc.validate.statistics import Interval

Metric = Literal["accuracy", "speed"]
METRICS: tuple[Metric, ...] = get_args(Metric)
ALARMS = 0.005
"""Of a night: half of the one in a hundred that is promised."""


@dataclass(frozen=True)
class Difference:
    """One of a night's circumstances that is not what it was."""

    name: str
    was: str | None
    now: str | None


@dataclass(frozen=True)
class Change:
    metric: Metric
    call: Call
    before: int
    """The last night that counted before it; this and the next two are indices into the history's evenings."""
    first: int
    """From which on it was so."""
    told: int
    size: float
    interval: Interval
    differences: tuple[Difference, ...]
    """Between the last night that counted before it and the first; empty where nothing that we know of changed."""


@dataclass(frozen=True)
class Followed:
    """A series by one of its metrics."""

    series: Series
    metric: Metric
    evenings: tuple[int, ...]
    said: tuple[Said, ...]
    """Of each of the evenings."""
    changes: tuple[Change, ...]


_JUDGES: dict[Metric, Judge] = {"accuracy": accuracy_changes.judge, "speed": speed_changes.judge}


def follow(past: Past, alarms: float = ALARMS) -> list[Followed]:
    """Every series by every metric that it was measured in. `alarms`: the false ones that a quiet night may have."""
    found = []
    for track in past.tracks:
        chances = [alarms / (len(METRICS) * past.evenings[point.evening].runs) for point in track.points]
        controls = [_control(past, point) for point in track.points]
        for metric, judge in _JUDGES.items():
            if not _measured(track.points, metric):
                continue
            said = tuple(judge(track.points, chances, controls))
            evenings = tuple(point.evening for point in track.points)
            found.append(Followed(track.series, metric, evenings, said, _changes(past, track.points, metric, said)))
    return found


def _control(past: Past, point: Point) -> str | None:
    return None if point.circumstances is None else past.circumstances[point.circumstances].control


def _measured(points: Sequence[Point], metric: Metric) -> bool:
    return any((point.items if metric == "accuracy" else point.ratio) is not None for point in points)


def _changes(past: Past, points: Sequence[Point], metric: Metric, said: Sequence[Said]) -> tuple[Change, ...]:
    return tuple(
        Change(
            metric=metric,
            call=found.call,
            before=points[found.before].evening,
            first=points[found.first].evening,
            told=point.evening,
            size=found.size,
            interval=found.interval,
            differences=_differences(past, points[found.before], points[found.first]),
        )
        for point, one in zip(points, said, strict=True)
        if (found := one.found) is not None
    )


def _differences(past: Past, before: Point, first: Point) -> tuple[Difference, ...]:
    if before.circumstances is None or first.circumstances is None:
        return ()
    was, now = past.circumstances[before.circumstances], past.circumstances[first.circumstances]
    pairs = ((name, getattr(was, name), getattr(now, name)) for name in Circumstances.model_fields)
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])
