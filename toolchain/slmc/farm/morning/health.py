"""Of a device: how often it measured, how steadily, and when its system became another."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slmc.farm.morning.standing import Standing
from slmc.farm.tracks import Past, Point

UNITS = ("measured", "unclear", "failed", "not run")


@dataclass(frozen=True)
class Turn:
    """A circumstance of the device that was another from some night on."""

    evening: int
    name: str
    was: str
    now: str


@dataclass(frozen=True)
class Health:
    """Over some nights."""

    runs: dict[str, int]
    """By UNITS: a run is unclear where its speed or its outcome is, and measured where neither is nor it failed."""
    variations: Sequence[float | None]
    """Of each night: the median of its runs' variation of rounds; None where no speed was measured."""
    known: dict[str, str]
    """Model, system and each backend's runtime, as they were last."""
    turns: Sequence[Turn]
    """The newest first."""

    @property
    def typical(self) -> float | None:
        """Median of the nights' variations."""
        there = [one for one in self.variations if one is not None]
        return statistics.median(there) if there else None


def health(past: Past, standings: Sequence[Standing], first: int) -> Health:
    """Of one device's series, from an evening on; turns from the history's beginning."""
    runs = dict.fromkeys(UNITS, 0)
    variations: list[list[float]] = [[] for _ in past.evenings[first:]]
    for one in standings:
        for point in one.track.points:
            if point.evening >= first:
                runs[_unit(point)] += 1
                if point.variation is not None:
                    variations[point.evening - first].append(point.variation)
    known, turns = _turns(past, standings)
    return Health(runs, [statistics.median(each) if each else None for each in variations], known, turns)


def _unit(point: Point) -> str:
    if point.outcome == "not run":
        return "not run"
    if point.outcome == "fail":
        return "failed"
    return "unclear" if "unclear" in (point.outcome, point.verdict) else "measured"


def _turns(past: Past, standings: Sequence[Standing]) -> tuple[dict[str, str], list[Turn]]:
    known: dict[tuple[str, str], str] = {}
    found: list[Turn] = []
    for evening, name, recipe, now in sorted(set(_seen(past, standings))):
        before = known.get((name, recipe), now)
        if before != now:
            found.append(Turn(evening, name, before, now))
        known[name, recipe] = now
    values: dict[str, dict[str, None]] = {}
    for (name, _), value in known.items():
        values.setdefault(name, {})[value] = None
    # Recipes of one backend have one runtime, as a rule, and change it together.
    return {name: " and ".join(each) for name, each in values.items()}, list(dict.fromkeys(found))[::-1]


def _seen(past: Past, standings: Sequence[Standing]) -> Iterator[tuple[int, str, str, str]]:
    """Each circumstance when a series' own become others: evening, name, the recipe that a runtime is of, value."""
    for one in standings:
        last = None
        for point in one.track.points:
            if point.circumstances is None or point.circumstances == last:
                continue
            last = point.circumstances
            its = past.circumstances[last]
            yield point.evening, "model", "", its.model
            yield point.evening, "system", "", its.os
            yield (
                point.evening,
                f"runtime for {one.series.target}, {one.series.backend}",
                one.series.recipe,
                its.runtime,
            )
