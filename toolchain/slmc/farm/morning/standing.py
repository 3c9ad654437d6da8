"""How each series stands after a night, and what of that is news."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from slmc.errors import InputError, did_you_mean
from slmc.farm.changes import Change, Followed, Metric, follow
from slmc.farm.quarantine import Quarantine, quarantined
from slmc.farm.record import Night, Run, Series
from slmc.farm.tracks import Evening, Past, Point, Track

State = Literal["fail", "not run", "regression", "worse", "can't tell", "pass", "not asked"]
"""The worst first. Worse: a change that an earlier night told, and no improvement since."""
STATES: tuple[State, ...] = get_args(State)
LONG = 5
"""Nights in a row that can't tell, after which a person must look: a new series can after four."""


@dataclass(frozen=True)
class Standing:
    """One series, with all its nights up to the report's."""

    track: Track
    followed: Mapping[Metric, Followed]
    """By the metrics that it was ever measured in."""
    evening: int
    """The report's night: an index into the history's evenings."""
    run: Run | None
    """The report's night's, whole; None where that did not ask it."""

    @property
    def series(self) -> Series:
        return self.track.series

    @property
    def limit(self) -> int | None:
        """Bytes of memory that its device's class allows; None where none is known."""
        return None if self.run is None else self.run.memory_limit_bytes

    @property
    def point(self) -> Point:
        """Its last night, which is the report's unless it was not asked."""
        return self.track.points[-1]

    @cached_property
    def state(self) -> State:
        if self.point.evening != self.evening:
            return "not asked"
        return "worse" if self.tonight in ("pass", "can't tell") and self.worse else self.tonight

    @cached_property
    def tonight(self) -> State:
        """By its last night alone, whatever went before."""
        return self._state(-1)

    @cached_property
    def told(self) -> tuple[Change, ...]:
        """Changes that the report's night told."""
        last = (one.changes[-1] for one in self.followed.values() if one.changes)
        return tuple(change for change in last if change.told == self.evening)

    @cached_property
    def worse(self) -> tuple[Change, ...]:
        """Regressions that earlier nights told and that still stand."""
        last = (one.changes[-1] for one in self.followed.values() if one.changes)
        return tuple(change for change in last if change.call == "regression" and change.told != self.evening)

    @cached_property
    def nights(self) -> int:
        """In a row that are as the last one is, by themselves alone."""
        count = 1
        while count < len(self.track.points) and self._state(-1 - count) == self.tonight:
            count += 1
        return count

    @property
    def unsure(self) -> bool:
        """For so long that a person must look."""
        return self.tonight == "can't tell" and self.nights >= LONG

    @cached_property
    def recovered(self) -> bool:
        """Failed or not run when it was last asked, and neither tonight."""
        bad = ("fail", "not run")
        before = self.track.points[-2].outcome if len(self.track.points) > 1 else "pass"
        return before in bad and self.point.outcome not in bad

    def earlier(self) -> list[Change]:
        """Changes that are neither told tonight nor still a regression, the newest first."""
        every = (change for one in self.followed.values() for change in one.changes)
        return sorted((each for each in every if each not in self.told + self.worse), key=lambda each: -each.first)

    def doubts(self) -> list[str]:
        """Why tonight can't be told."""
        said = ((metric, one.said[-1]) for metric, one in self.followed.items())
        found = [f"{metric}: {one.reason}" for metric, one in said if one.call == "can't tell"]
        return ([self.point.reason or "unclear"] if self.point.outcome == "unclear" else []) + found

    def _state(self, index: int) -> State:
        """Of one of its nights, by that night alone."""
        outcome = self.track.points[index].outcome
        if outcome == "fail":
            return "fail"
        if outcome == "not run":
            return "not run"
        calls = {one.said[index].call for one in self.followed.values()}
        if "regression" in calls:
            return "regression"
        return "can't tell" if outcome == "unclear" or "can't tell" in calls or not calls else "pass"


@dataclass(frozen=True)
class Morning:
    past: Past
    """Up to the report's night, which is its last."""
    standings: Sequence[Standing]
    """By recipe, target, backend, device."""

    @property
    def night(self) -> Evening:
        return self.past.evenings[-1]

    @cached_property
    def quarantined(self) -> dict[str, Quarantine]:
        """Of the devices that it tells of."""
        found, told = quarantined(self.past), {one.series.device for one in self.standings}
        return {device: found[device] for device in sorted(found) if device in told}

    @property
    def asked(self) -> list[Standing]:
        """Those of the night."""
        return [one for one in self.standings if one.state != "not asked"]

    @cached_property
    def broken(self) -> list[Standing]:
        """Failed, or told tonight to be worse: the newest first."""
        found = [one for one in self.standings if one.state in ("fail", "regression")]
        return sorted(found, key=lambda one: (one.nights, STATES.index(one.state)))

    @cached_property
    def waiting(self) -> list[Standing]:
        """For a person: not run, or not told for long."""
        found = [one for one in self.asked if one.tonight == "not run" or one.unsure]
        return sorted(found, key=lambda one: (one.state != "not run", one.nights))

    @cached_property
    def better(self) -> list[Standing]:
        """Improved, or back from a failure."""
        return [
            one
            for one in self.asked
            if one.state not in ("fail", "not run", "regression")
            and (one.recovered or any(change.call == "improvement" for change in one.told))
        ]

    @cached_property
    def worse(self) -> list[Standing]:
        return [one for one in self.standings if one.state == "worse"]

    def counts(self) -> dict[State, int]:
        """Of the states that there are, the worst first."""
        states = [one.state for one in self.standings]
        return {state: states.count(state) for state in STATES if state in states}


def until(past: Past, night: str | None) -> Past:
    """The history as it was after a night; None is its last. Raises InputError where there is none of that name."""
    if not past.evenings:
        raise InputError("the history has no night yet", todo="run one with slmc nightly")
    names = [evening.id for evening in past.evenings]
    if night is None or night == names[-1]:
        return past
    if night not in names:
        raise InputError(f"no night {night} in the history", todo=did_you_mean(night, names))
    count = names.index(night) + 1
    tracks = (Track(one.series, [p for p in one.points if p.evening < count]) for one in past.tracks)
    controls = [(evening, said) for evening, said in past.controls if evening < count]
    return Past(past.evenings[:count], past.circumstances, [track for track in tracks if track.points], controls)


def morning_of(past: Past, night: Night | None, recipe: str | None = None) -> Morning:
    """The history's last night, all of it judged, and of that one recipe where it is named.

    `night`: that night as it was added, for what only whole runs tell. Raises InputError for a recipe that no series
    has.
    """
    runs = {} if night is None else {run.series: run for run in night.runs}
    followed = _by_series(follow(past))
    last = len(past.evenings) - 1
    standings = [
        Standing(track, followed.get(track.series, {}), last, runs.get(track.series))
        for track in past.tracks
        if track.points and recipe in (None, track.series.recipe)
    ]
    if recipe is not None and not standings:
        known = {track.series.recipe for track in past.tracks}
        raise InputError(f"no recipe {recipe} in the history", todo=did_you_mean(recipe, known))
    return Morning(past, standings)


def _by_series(followed: Iterable[Followed]) -> dict[Series, dict[Metric, Followed]]:
    found: dict[Series, dict[Metric, Followed]] = {}
    for one in followed:
        found.setdefault(one.series, {})[one.metric] = one
    return found
