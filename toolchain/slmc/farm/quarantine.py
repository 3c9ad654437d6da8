"""Devices whose control failed night after night: they say nothing of bundles until it passes again."""

from __future__ import annotations

from dataclasses import dataclass

from slmc.farm.tracks import Past

NIGHTS = 3
"""In a row, after which a device is quarantined. One night that passes ends it."""


@dataclass(frozen=True)
class Quarantine:
    since: str
    """The night that made it one."""
    nights: int
    """In a row that the control failed."""
    reason: str
    """The last one's."""

    def __str__(self) -> str:
        return (
            f"quarantined since {self.since}: its control failed on {self.nights} nights in a row, last: {self.reason}"
        )


def quarantined(past: Past) -> dict[str, Quarantine]:
    """By device. A night that could not ask the control says nothing; nights that began on one day, as shards do, count
    as one.
    """
    failed: dict[str, dict[object, int]] = {}
    reasons: dict[str, str] = {}
    for evening, control in past.controls:
        if control.outcome == "pass":
            failed.pop(control.device, None)
        elif control.outcome == "fail":
            day = past.evenings[evening].started.date()
            failed.setdefault(control.device, {}).setdefault(day, evening)
            reasons[control.device] = control.reason
    return {
        device: Quarantine(past.evenings[list(days.values())[NIGHTS - 1]].id, len(days), reasons[device])
        for device, days in failed.items()
        if len(days) >= NIGHTS
    }
