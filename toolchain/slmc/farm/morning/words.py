"""Changes and states as people read them, the same on the pages, in the summary and for CI."""

from __future__ import annotations

from slmc.farm.changes import Change, Difference
from slmc.farm.morning.standing import Morning, Standing, State
from slmc.farm.record import Ladder
from slmc.farm.tracks import Past
from slmc.target import MIB
from slmc.validate.words import NOTHING, percent, quantity, size

CLASSES: dict[State, str] = {
    "fail": "fail",
    "not run": "fail",
    "regression": "fail",
    "worse": "unclear",
    "can't tell": "unclear",
    "pass": "pass",
    "not asked": "soft",
}
"""Of the stylesheet's colours."""


def headline(morning: Morning) -> str:
    """Of the night, the worst first: "2 fail, 1 regression, 47 pass"."""
    told = ", ".join(f"{count} {state}" for state, count in morning.counts().items())
    return told or "nothing was asked"


def kind(one: Standing) -> str:
    return f"{one.series.target} {one.series.backend}"


def accuracy(one: Standing) -> str:
    right, items = one.point.right, one.point.items
    return NOTHING if right is None or not items else percent(right / items)


def speed(one: Standing) -> str:
    """Of the control's time, with a question mark where the night was unclear."""
    if one.point.ratio is None:
        return NOTHING
    return ratio(one.point.ratio) + ("" if one.point.verdict == "measured" else " ?")


def ratio(value: float) -> str:
    return f"{value:.3f}×" if value < 100 else f"{value:.3g}×"


def memory(one: Standing) -> str:
    """Peak, such as "410 of 1,536 MiB" where it is known what the device's class allows."""
    peak = one.point.peak_memory_bytes
    return size(peak) if peak is None or one.limit is None else f"{peak / MIB:,.0f} of {size(one.limit)}"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{quantity(value)} ms"


def tokens_per_s(value: float | None) -> str:
    return NOTHING if value is None else f"{quantity(value)} tokens/s"


def reasons(past: Past, one: Standing) -> list[str]:
    """Why it is not a plain pass, and what changed; each a sentence for a person."""
    if one.state == "not asked":
        return [f"last asked on {past.evenings[one.point.evening].id}: {one.point.outcome}"]
    told = [change(past, found) for found in one.told]
    again = f" ({one.nights} nights in a row)" if one.nights > 1 else ""
    if one.state in ("fail", "not run"):
        told.insert(0, f"{one.point.reason or one.point.outcome}{again}")
    elif doubts := one.doubts():
        told += [f"{doubt}{again}" for doubt in doubts]
    elif one.state == "can't tell":
        told.append("nothing of it was ever measured")
    if one.recovered:
        told.append(f"{one.track.points[-2].outcome} on {past.evenings[one.track.points[-2].evening].id}")
    return told + [f"still worse: {change(past, found)}" for found in one.worse]


def lost(ladder: Ladder) -> str:
    """At which rungs, the one that lost most first: "lost 22 at quantized, 0 at device". Empty where none lost any."""
    told = [(rung.lost, rung.name) for rung in ladder.rungs if rung.lost or (rung.lost == 0 and rung.name == "device")]
    told.sort(key=lambda each: -each[0])
    return f"lost {', '.join(f'{count} at {name}' for count, name in told)}" if told and told[0][0] else ""


def change(past: Past, found: Change, size: str | None = None) -> str:
    """Its size with its interval, or as it is given; its nights, and what else was new then."""
    what = ", ".join(difference(each) for each in found.differences) or "nothing that is recorded changed"
    nights = f"since {past.evenings[found.first].id}, after {past.evenings[found.before].id}"
    unit = "points" if found.metric == "accuracy" else "of time"
    size = size or f"{size_of(found)} ({_told(found, found.interval.low)} to {_told(found, found.interval.high)})"
    return f"{found.call}: {found.metric} {size} {unit} {nights}; {what}"


def size_of(found: Change) -> str:
    """Of accuracy in points, of speed in percent of the time."""
    return _told(found, found.size)


def _told(found: Change, value: float) -> str:
    return f"{value * 100:+.2f}" if found.metric == "accuracy" else f"{value:+.1%}"


def difference(each: Difference) -> str:
    return f"{each.name} {short(each.was)} → {short(each.now)}"


def short(value: str | None) -> str:
    """A digest's beginning is enough for a person."""
    if value is None:
        return "none"
    return f"{value[:12]}…" if len(value) == 64 else value
