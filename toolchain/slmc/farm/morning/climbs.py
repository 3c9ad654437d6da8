"""Which step broke a model: the rungs that a bundle's devices share, each device as the last one, and what flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from slmc.farm.morning.standing import Standing
from slmc.farm.record import Circumstances, FlipShown, Ladder, Run, RungShown, Series
from slmc.validate.report import RungName

DEVICE: RungName = "device"
_RUNGS: tuple[RungName, ...] = get_args(RungName)
_KINDS = ("lost", "won", "other")


@dataclass(frozen=True)
class Flipped:
    """An item, at the first rung that answered it otherwise."""

    flip: FlipShown
    devices: Sequence[str]
    """Where a device answered it so; empty on the rungs below, which all devices share."""


@dataclass(frozen=True)
class Climb:
    """A bundle's ladder in the report's night."""

    bundle: str
    items: int | None
    below: Sequence[RungShown]
    """From the reference up to the device."""
    devices: Sequence[tuple[Standing, RungShown | None]]
    flips: Sequence[Flipped]
    """Rung by rung, lost ones first; a device's by how many devices they are on."""
    more: int
    """Flips that the history did not keep, of the device that has most of them."""

    @property
    def series(self) -> Series:
        """Its first device's."""
        return self.devices[0][0].series

    @property
    def most_lost(self) -> int:
        """At one rung, whichever it is."""
        rungs = [*self.below, *(rung for _, rung in self.devices if rung is not None)]
        return max((rung.lost or 0 for rung in rungs), default=0)

    def by_rung(self) -> list[tuple[RungName, list[Flipped]]]:
        """Of the rungs that an item flipped on."""
        return [(rung, list(found)) for rung, found in groupby(self.flips, key=lambda one: one.flip.rung)]

    def where(self, found: Flipped) -> str:
        """Its device, or on how many of them."""
        count = len(found.devices)
        return found.devices[0] if count == 1 else f"{count} of {len(self.devices)} devices"


def climbs(standings: Sequence[Standing]) -> list[Climb]:
    """Of those that were judged in the report's night. Devices share a ladder where bundle, items and all rungs below
    are the same: a bundle that two machines climbed may have two.
    """
    groups: dict[object, list[tuple[Standing, Run, Circumstances, Ladder]]] = {}
    for one in standings:
        run = one.run
        if run is not None and run.circumstances is not None and run.ladder is not None:
            asked = run.accuracy and (run.accuracy.asked, run.accuracy.items)
            kind = (one.series.recipe, one.series.target, one.series.backend)
            key = (kind, run.circumstances.bundle, asked, _below(run.ladder))
            groups.setdefault(key, []).append((one, run, run.circumstances, run.ladder))
    return [_climb(group) for group in groups.values()]


def _climb(group: Sequence[tuple[Standing, Run, Circumstances, Ladder]]) -> Climb:
    _, run, circumstances, ladder = group[0]
    return Climb(
        bundle=circumstances.bundle,
        items=run.accuracy.items if run.accuracy else None,
        below=_below(ladder),
        devices=[(one, _device(its)) for one, _, _, its in group],
        flips=_flips({one.series.device: its for one, _, _, its in group}),
        more=max(its.more for _, _, _, its in group),
    )


def _below(ladder: Ladder) -> tuple[RungShown, ...]:
    return tuple(rung for rung in ladder.rungs if rung.name != DEVICE)


def _device(ladder: Ladder) -> RungShown | None:
    return next((rung for rung in ladder.rungs if rung.name == DEVICE), None)


def _flips(ladders: Mapping[str, Ladder]) -> list[Flipped]:
    """Of all devices, each once: a ladder that is cut off may lack what another's has."""
    found: dict[FlipShown, list[str]] = {}
    for device, ladder in ladders.items():
        for flip in dict.fromkeys(ladder.flips):
            found.setdefault(flip, []).append(device)
    flips = [Flipped(flip, devices if flip.rung == DEVICE else ()) for flip, devices in found.items()]
    return sorted(
        flips,
        key=lambda one: (_RUNGS.index(one.flip.rung), _KINDS.index(one.flip.kind), -len(one.devices)),
    )
