"""News told once: series that share a cause are one story, as where a phone's new system slows all recipes on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from slmc.farm.changes import Change
from slmc.farm.morning import words
from slmc.farm.morning.standing import LONG, Morning, Standing
from slmc.farm.tracks import Past

Changes = Callable[[Standing], Sequence[Change]]
"""Of a series, those that a chapter is about."""


@dataclass(frozen=True)
class Story:
    title: str
    """Of the chapter that it stands in."""
    standings: Sequence[Standing]
    reasons: Sequence[str]
    """Sentences that hold for all of them, or for the first where it says so."""

    def places(self, most: int) -> list[tuple[str, list[Standing]]]:
        """Each device with its series, of the first so many series."""
        found: dict[str, list[Standing]] = {}
        for one in self.standings[:most]:
            found.setdefault(one.series.device, []).append(one)
        return list(found.items())

    def more(self, most: int) -> str:
        """What `places` leaves out, in words; empty where that is nothing."""
        left = len(self.standings) - most
        return f" and {left} more series" if left > 0 else ""

    @property
    def kind(self) -> str:
        """Target and backend, where all have the same; else empty."""
        kinds = {words.kind(one) for one in self.standings}
        return kinds.pop() if len(kinds) == 1 else ""


def stories(morning: Morning) -> list[Story]:
    """What is news, chapter by chapter: what to look at first comes first."""
    chapters = {
        "Failed, or worse since last night": morning.broken,
        f"Waits for a person: not run, or can't tell for {LONG} nights or more": morning.waiting,
        "Better, or back": morning.better,
    }
    return [story for title, found in chapters.items() for story in _grouped(morning.past, title, found, _told)]


def still_worse(morning: Morning) -> list[Story]:
    """No news, and not forgotten."""
    return list(_grouped(morning.past, "Worse since an earlier night", morning.worse, lambda one: one.worse))


def _told(one: Standing) -> Sequence[Change]:
    return one.told


def _grouped(past: Past, title: str, found: Sequence[Standing], changes: Changes) -> Iterable[Story]:
    groups: dict[object, list[Standing]] = {}
    for one in found:
        groups.setdefault(_cause(one, changes(one)), []).append(one)
    return (Story(title, group, _reasons(past, group, changes)) for group in groups.values())


def _cause(one: Standing, changes: Sequence[Change]) -> object:
    """Series of which this is equal are one story."""
    if one.tonight in ("fail", "not run"):
        return one.state, one.point.reason, one.nights
    if changes:
        return one.state, tuple((each.metric, each.call, each.before, each.first, each.differences) for each in changes)
    return one.state, one.series.device


def _reasons(past: Past, group: Sequence[Standing], changes: Changes) -> list[str]:
    told = words.reasons(past, group[0])
    if all(words.reasons(past, one) == told for one in group[1:]):
        return told
    if group[0].tonight in ("fail", "not run") or not changes(group[0]):
        return [f"such as {group[0].series.recipe}: {reason}" for reason in told]
    return [_together(past, alike) for alike in zip(*map(changes, group), strict=True)]


def _together(past: Past, changes: Sequence[Change]) -> str:
    """Of one cause: from the least size to the greatest."""
    sizes = sorted(changes, key=lambda change: abs(change.size))
    between = f"{words.size_of(sizes[0])} to {words.size_of(sizes[-1])}"
    return words.change(past, changes[0], between)
