"""Between which ratios a night's speed may lie by chance: the test's own level, noise and limits, played again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from slmc.farm.changes import ALARMS, METRICS, Followed
from slmc.farm.speed_changes import LEAST_NIGHTS, MEDIAN_ERROR, Known, limits_of
from slmc.farm.tracks import Past, Point, Track


class Band(NamedTuple):
    low: float
    high: float


def speed_bands(past: Past, track: Track, followed: Followed) -> Iterator[Band | None]:
    """Of each of the track's nights; a second night in a row beyond it would be a change. None: the test has none."""
    known, control = Known(), None
    for night, (point, said) in enumerate(zip(track.points, followed.said, strict=True)):
        its = None if point.circumstances is None else past.circumstances[point.circumstances].control
        if its is not None and its != control:
            known, control = Known() if control is None else _again(known), its
        if its is None or point.verdict != "measured":
            yield None
            continue
        yield _band(known, night, point, ALARMS / (len(METRICS) * past.evenings[point.evening].runs))
        if said.found is not None:
            first = said.found.first
            known.begin_again([one for one in known.recent if one.night >= first], "the last change")


def _again(known: Known) -> Known:
    """With the same noise and another level."""
    known.begin_again((), "another control was taken")
    return known


def _band(known: Known, night: int, point: Point, chance: float) -> Band | None:
    """Before the night, which is then learnt."""
    assert point.ratio is not None
    assert point.variation is not None
    assert point.rounds is not None
    error = MEDIAN_ERROR * point.variation / math.sqrt(point.rounds)
    known.learn(night, math.log(point.ratio), error)
    level = known.recent[-1].level
    if level is None or level.nights < LEAST_NIGHTS:
        return None
    limits = limits_of(chance, 2)
    half = max(limits.nights * level.spread, limits.rounds * error)
    return Band(_ratio(level.centre - half), _ratio(level.centre + half))


def _ratio(logarithm: float) -> float:
    """Cut off beyond what a clock measures."""
    return math.exp(min(logarithm, 100.0))
