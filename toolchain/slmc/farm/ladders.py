"""What a night keeps of a ladder: each rung's count, and the items that flipped."""

from __future__ import annotations

from slmc.farm.record import FlipShown, Ladder, RungShown
from slmc.validate.report import Flip, Report, RungReport

FLIPS = 50
"""Kept of each ladder: a history of years holds many."""
TEXT = 200
"""Characters kept of an item's text and of each answer."""
_ORDER = ("lost", "won", "other")


def shown(report: Report) -> Ladder:
    """Lost items first, in the workload's order among themselves."""
    flips = sorted(report.flips, key=lambda flip: _ORDER.index(flip.kind))
    return Ladder(
        rungs=tuple(_rung(rung) for rung in report.rungs),
        flips=tuple(_flip(flip) for flip in flips[:FLIPS]),
        more=max(0, len(flips) - FLIPS),
    )


def _rung(rung: RungReport) -> RungShown:
    answers = rung.answers
    below = None if answers is None else answers.against_previous
    paired = None if below is None else below.paired
    return RungShown(
        name=rung.name,
        status=rung.status,
        right=None if answers is None else answers.accuracy.count,
        lost=None if paired is None else paired.lost,
        won=None if paired is None else paired.won,
        changed=None if paired is None else paired.lost + paired.won + paired.changed,
    )


def _flip(flip: Flip) -> FlipShown:
    climbed = list(flip.answers)
    before = climbed[climbed.index(flip.rung) - 1]
    return FlipShown(
        id=flip.id,
        rung=flip.rung,
        kind=flip.kind,
        text=flip.text[:TEXT],
        expected=flip.expected[:TEXT],
        before=flip.answers[before][:TEXT],
        after=flip.answers[flip.rung][:TEXT],
    )
