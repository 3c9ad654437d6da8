"""What a history knows of devices, bundles and controls, whichever series told it."""

from __future__ import annotations

from datetime import datetime
from statistics import median
from typing import NamedTuple

from slmc.farm.changes import Change, follow
from slmc.farm.record import Circumstances, Series
from slmc.farm.tracks import Past, Point, Track
from slmc.names import BackendName, TargetName


class Place(NamedTuple):
    """What the last night that knew a device says of it."""

    evening: int
    model: str
    device_class: str | None


class Newest(NamedTuple):
    bundle: str | None
    first: int
    """Evening."""


def since(past: Past, moment: datetime) -> Past:
    """As if earlier nights had not been."""
    first = sum(evening.started < moment for evening in past.evenings)
    tracks = (
        Track(one.series, [p._replace(evening=p.evening - first) for p in one.points if p.evening >= first])
        for one in past.tracks
    )
    return Past(past.evenings[first:], past.circumstances, [one for one in tracks if one.points])


def places_of(past: Past) -> dict[tuple[TargetName, str], Place]:
    """By target and device, from whatever recipe measured there."""
    found: dict[tuple[TargetName, str], Place] = {}
    for track in past.tracks:
        key = (track.series.target, track.series.device)
        for point in track.points:
            where = where_of(past, point)
            if where is not None and (key not in found or found[key].evening <= point.evening):
                found[key] = Place(point.evening, where.model, point.device_class)
    return found


def where_of(past: Past, point: Point) -> Circumstances | None:
    return None if point.circumstances is None else past.circumstances[point.circumstances]


def newest_of(past: Past) -> dict[tuple[TargetName, BackendName], Newest]:
    """A night builds one bundle for all devices of a target: theirs is the one that any of them measured last."""
    seen: dict[tuple[TargetName, BackendName], list[tuple[int, str]]] = {}
    for track in past.tracks:
        for point in track.points:
            where = where_of(past, point)
            if where is not None:
                seen.setdefault((track.series.target, track.series.backend), []).append((point.evening, where.bundle))
    last = {key: max(nights)[1] for key, nights in seen.items()}
    return {
        key: Newest(bundle, min(evening for evening, its in seen[key] if its == bundle)) for key, bundle in last.items()
    }


def controls_of(past: Past, first: int) -> dict[tuple[str, str], float]:
    """By device and control's digest: its own time, ms, median over what counts of all recipes."""
    found: dict[tuple[str, str], list[float]] = {}
    for track in past.tracks:
        for point in track.points:
            where = where_of(past, point)
            if point.evening >= first and point.control_ms_p50 is not None and where is not None and where.control:
                found.setdefault((track.series.device, where.control), []).append(point.control_ms_p50)
    return {key: median(times) for key, times in found.items()}


def worse_of(past: Past) -> dict[Series, Change]:
    """Regressions that stand: no improvement was told since."""
    last = ((one.series, one.changes[-1]) for one in follow(past) if one.changes)
    return {series: change for series, change in last if change.call == "regression"}
