"""What a history says for and against giving each backend's newest bundle to a device that measured it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from typing import Literal

from slmc.farm.changes import Change
from slmc.farm.portfolio.past import Newest, Place, controls_of, newest_of, places_of, where_of, worse_of
from slmc.farm.record import Count, Positive, Series, Words
from slmc.farm.tracks import Past, Point, Track
from slmc.names import BackendName, TargetName
from slmc.strict import Strict
from slmc.target import MIB
from slmc.validate.statistics import Interval, proportion

Support = Literal[
    "supported", "measured once", "not lately", "can't tell", "too slow", "worse", "too much memory", "failed"
]
"""The worst last. Measured once and not lately are neither for nor against; all behind them are against."""
REFUSED: frozenset[Support] = frozenset({"too slow", "worse", "too much memory", "failed"})
AGAINST: frozenset[Support] = REFUSED | {"can't tell"}
LEAST_NIGHTS = 2
"""That must have passed: the second confirms the first, as it does a change."""
NIGHTS = 7
"""A week: devices that are there on some days only, and as many as speed's test looks back for unclear ones."""
LONGEST = 200
"""Characters of a night's reason."""


class Right(Strict):
    """Of the task's items."""

    right: Count
    items: Count
    interval: Interval
    """Of the share, 95%."""


class Evidence(Strict):
    """Of one device by one backend's newest bundle. Devices have no names here: apps can read this."""

    backend: BackendName
    bundle: Words | None
    """Its digest; None where no night came so far as to know it."""
    model: Words | None
    """None where no night came so far as to know the device."""
    system: Words | None
    """On the last of its nights that knew it."""
    device_class: Words | None
    """Of the target's; None where the device has none, or is not known."""
    support: Support
    detail: Words
    """Why it is not supported; empty where it is."""
    nights: Count
    """That passed, of those that count."""
    since: str
    """The first night that this bundle was measured there."""
    last: str
    """The last one."""
    accuracy: Right | None
    """Of the last night that answered."""
    decision_ms_p50: Positive | None
    """Median over the nights that passed with a clear speed."""
    decision_ms_p95: Positive | None
    peak_memory_bytes: Count | None
    """The highest of the nights that count."""
    memory_limit_bytes: Count | None


@dataclass(frozen=True)
class Heard:
    """Evidence, and by what its speed is held against another backend's."""

    target: TargetName
    evidence: Evidence
    paces: tuple[float, ...]
    """Of each night that passed with a clear speed, ms: its ratio times what the control takes on that device, so that
    a night that slowed both counts for neither; its own time where no control is known."""


@dataclass(frozen=True)
class Terms:
    """What is asked of a history."""

    nights: int = NIGHTS
    """That count: those that began within as many days before the last, so that a night's shards are one."""
    max_ms: float | None = None
    """Of a decision, p50."""


def hear(past: Past, recipe: str, terms: Terms) -> list[Heard]:
    """Of every device that measured a newest bundle of the recipe, or failed at it."""
    own = replace(past, tracks=[track for track in past.tracks if track.series.recipe == recipe])
    reader = _Reader(
        past, terms, places_of(past), newest_of(own), controls_of(past, _first(past, terms)), worse_of(own)
    )
    heard = (reader.hear(track) for track in own.tracks)
    return [one for one in heard if one is not None]


def _first(past: Past, terms: Terms) -> int:
    """Evening from which on nights count."""
    after = past.evenings[-1].started - timedelta(days=terms.nights)
    return next(index for index, evening in enumerate(past.evenings) if evening.started > after)


@dataclass(frozen=True)
class _Reader:
    past: Past
    terms: Terms
    places: dict[tuple[TargetName, str], Place]
    newest: dict[tuple[TargetName, BackendName], Newest]
    controls: dict[tuple[str, str], float]
    worse: dict[Series, Change]

    def hear(self, track: Track) -> Heard | None:
        series = track.series
        place = self.places.get((series.target, series.device))
        newest = self.newest.get((series.target, series.backend), Newest(None, 0))
        points = [point for point in track.points if self._counts(point, place, newest)]
        if not points:
            return None
        first = _first(self.past, self.terms)
        recent = [point for point in points if point.evening >= first]
        passed = [point for point in recent if point.outcome == "pass"]
        clear = [point for point in passed if point.verdict == "measured"]
        systems = [where.os for point in points if (where := where_of(self.past, point)) is not None]
        support, detail = self._support(series, points, recent)
        evidence = Evidence(
            backend=series.backend,
            bundle=newest.bundle,
            model=place and place.model,
            system=systems[-1] if systems else None,
            device_class=place and place.device_class,
            support=support,
            detail=detail[:LONGEST],
            nights=len(passed),
            since=self._night(points[0]),
            last=self._night(points[-1]),
            accuracy=_right(points),
            decision_ms_p50=_middle([point.decision_ms_p50 for point in clear]),
            decision_ms_p95=_middle([point.decision_ms_p95 for point in clear]),
            peak_memory_bytes=max((peak for p in recent if (peak := p.peak_memory_bytes) is not None), default=None),
            memory_limit_bytes=points[-1].memory_limit_bytes,
        )
        paces = (self._pace(series.device, point) for point in clear)
        return Heard(series.target, evidence, tuple(pace for pace in paces if pace is not None))

    def _counts(self, point: Point, place: Place | None, newest: Newest) -> bool:
        """Of the newest bundle, by the phone that has this name today. A failure that came before the bundle was known
        is the newest's, unless it is older."""
        where = where_of(self.past, point)
        if point.outcome == "not run":
            return False
        if where is None or place is None:
            return point.evening >= newest.first
        return (where.bundle, where.model) == (newest.bundle, place.model)

    def _support(self, series: Series, points: Sequence[Point], recent: Sequence[Point]) -> tuple[Support, str]:
        """With why. A device's last word against a bundle stands, however long ago."""
        last = points[-1]
        for point in reversed(recent or points[-1:]):
            peak, limit = point.peak_memory_bytes, point.memory_limit_bytes
            if peak is not None and limit is not None and peak > limit:
                return "too much memory", f"{self._night(point)}: {peak / MIB:.0f} of {limit / MIB:.0f} MiB"
            if point.outcome == "fail":
                return "failed", f"{self._night(point)}: {point.reason}"
        if series in self.worse:
            change = self.worse[series]
            what = "right answers" if change.metric == "accuracy" else "time"
            return "worse", f"{change.size:+.1%} {what} since {self.past.evenings[change.first].id}"
        if not recent:
            return "not lately", f"last on {self._night(last)}"
        if last.outcome != "pass":
            return "can't tell", f"{self._night(last)}: {last.reason}"
        if self.terms.max_ms is not None:
            time = _middle([p.decision_ms_p50 for p in recent if p.outcome == "pass" and p.verdict == "measured"])
            if time is None:
                return "can't tell", "no clear speed"
            if time > self.terms.max_ms:
                return "too slow", f"{time:g} ms of {self.terms.max_ms:g}"
        passed = sum(point.outcome == "pass" for point in recent)
        return ("supported", "") if passed >= LEAST_NIGHTS else ("measured once", self._night(last))

    def _night(self, point: Point) -> str:
        return self.past.evenings[point.evening].id

    def _pace(self, device: str, point: Point) -> float | None:
        where = where_of(self.past, point)
        control = where and where.control and self.controls.get((device, where.control))
        return point.ratio * control if control and point.ratio is not None else point.decision_ms_p50


def _right(points: Sequence[Point]) -> Right | None:
    answered = [(point.right, point.items) for point in points if point.right is not None and point.items]
    if not answered:
        return None
    right, items = answered[-1]
    return Right(right=right, items=items, interval=proportion(right, items).interval)


def _middle(values: Sequence[float | None]) -> float | None:
    """Median of those that are known, to 4 digits."""
    known = [value for value in values if value is not None]
    return float(f"{median(known):.4g}") if known else None
