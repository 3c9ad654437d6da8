"""The night as one file for other programs: report.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from slmc.farm.changes import Change, Metric
from slmc.farm.judgement import Call
from slmc.farm.morning import words
from slmc.farm.morning.climbs import Climb, climbs
from slmc.farm.morning.standing import Morning, Standing, State
from slmc.farm.record import FlipShown, RungShown, Series
from slmc.farm.tracks import Past
from slmc.names import BackendName, TargetName
from slmc.strict import Strict
from slmc.validate.statistics import Interval


class ChangedCircumstance(Strict):
    name: str
    was: str | None
    now: str | None


class ToldChange(Strict):
    """Nights by their names."""

    metric: Metric
    call: Call
    before: str
    """The last night that counted before it."""
    first: str
    told: str
    size: float
    """Of accuracy in shares, of speed in shares of the time."""
    interval: Interval
    differences: tuple[ChangedCircumstance, ...]


class SeriesReport(Strict):
    series: Series
    state: State
    nights: Annotated[int, Field(gt=0)]
    """In a row that say the same."""
    asked: str
    """The night that it was asked last, which what follows is of."""
    outcome: str
    reasons: tuple[str, ...]
    calls: dict[Metric, Call]
    accuracy: float | None
    ratio: float | None
    """Of the time to the control's."""
    variation: float | None
    decision_ms_p50: float | None
    decision_ms_p95: float | None
    """Of the report's night, as are `first_token_ms`, tokens a second, `sustained`, `energy_mj` and
    `memory_limit_bytes`.
    """
    control_ms_p50: float | None
    load_ms: float | None
    first_token_ms: float | None
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    sustained: float | None
    """Decisions in the last tenth of a time without a pause, over those in the first."""
    energy_mj: float | None
    """Of a decision."""
    peak_memory_bytes: int | None
    memory_limit_bytes: int | None
    device_class: str | None
    model: str | None
    os: str | None
    runtime: str | None
    """With its version and kernels or delegate."""
    told: tuple[ToldChange, ...]
    """By the report's night."""
    worse: tuple[ToldChange, ...]
    """By earlier ones, and it still stands."""


class FlippedItem(FlipShown):
    """At the first rung that answered it otherwise."""

    devices: tuple[str, ...]
    """Where a device answered it so; empty on the rungs below, which all devices share."""


class DeviceRung(Strict):
    device: str
    rung: RungShown | None


class LadderReport(Strict):
    """Of a bundle: where answers broke on the way to the devices."""

    recipe: str
    target: TargetName
    backend: BackendName
    bundle: str
    items: int | None
    below: tuple[RungShown, ...]
    """From the reference up to the device, the same for all devices."""
    devices: tuple[DeviceRung, ...]
    flips: tuple[FlippedItem, ...]
    more: int
    """Flips that the history did not keep, of the device that has most of them."""


class QuarantinedDevice(Strict):
    device: str
    since: str
    """The night that made it one."""
    nights: int
    """In a row that its control failed."""
    reason: str
    """The last one's."""


class MorningReport(Strict):
    format: Literal[2] = 2
    night: str
    started: AwareDatetime
    finished: AwareDatetime
    states: dict[State, int]
    series: tuple[SeriesReport, ...]
    ladders: tuple[LadderReport, ...]
    """Of the report's night."""
    quarantined: tuple[QuarantinedDevice, ...]
    """Say nothing of bundles until their control passes again."""


def report_of(morning: Morning) -> MorningReport:
    return MorningReport(
        night=morning.night.id,
        started=morning.night.started,
        finished=morning.night.finished,
        states=morning.counts(),
        series=tuple(_series(morning.past, one) for one in morning.standings),
        ladders=tuple(_ladder(climb) for climb in climbs(morning.standings)),
        quarantined=tuple(
            QuarantinedDevice(device=device, **asdict(one)) for device, one in morning.quarantined.items()
        ),
    )


def _series(past: Past, one: Standing) -> SeriesReport:
    point, speed = one.point, None if one.run is None else one.run.speed
    where = None if point.circumstances is None else past.circumstances[point.circumstances]
    return SeriesReport(
        series=one.series,
        state=one.state,
        nights=one.nights,
        asked=past.evenings[point.evening].id,
        outcome=point.outcome,
        reasons=tuple(words.reasons(past, one)),
        calls={metric: followed.said[-1].call for metric, followed in one.followed.items()},
        accuracy=point.right / point.items if point.items and point.right is not None else None,
        ratio=point.ratio,
        variation=point.variation,
        decision_ms_p50=point.decision_ms_p50,
        decision_ms_p95=speed.decision_ms_p95 if speed else None,
        control_ms_p50=point.control_ms_p50,
        load_ms=point.load_ms,
        first_token_ms=speed.first_token_ms if speed else None,
        prefill_tokens_per_s=speed.prefill_tokens_per_s if speed else None,
        decode_tokens_per_s=speed.decode_tokens_per_s if speed else None,
        sustained=speed.sustained if speed else None,
        energy_mj=speed.energy_mj if speed else None,
        peak_memory_bytes=point.peak_memory_bytes,
        memory_limit_bytes=one.limit,
        device_class=point.device_class,
        model=where.model if where else None,
        os=where.os if where else None,
        runtime=where.runtime if where else None,
        told=tuple(_change(past, change) for change in one.told),
        worse=tuple(_change(past, change) for change in one.worse),
    )


def _ladder(climb: Climb) -> LadderReport:
    its = climb.series
    return LadderReport(
        recipe=its.recipe,
        target=its.target,
        backend=its.backend,
        bundle=climb.bundle,
        items=climb.items,
        below=tuple(climb.below),
        devices=tuple(DeviceRung(device=one.series.device, rung=rung) for one, rung in climb.devices),
        flips=tuple(FlippedItem(**one.flip.model_dump(), devices=tuple(one.devices)) for one in climb.flips),
        more=climb.more,
    )


def _change(past: Past, change: Change) -> ToldChange:
    return ToldChange(
        metric=change.metric,
        call=change.call,
        before=past.evenings[change.before].id,
        first=past.evenings[change.first].id,
        told=past.evenings[change.told].id,
        size=change.size,
        interval=change.interval,
        differences=tuple(ChangedCircumstance(name=d.name, was=d.was, now=d.now) for d in change.differences),
    )
