"""The night as one file for other programs: report.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from slmc.farm.changes import Change, Metric
from slmc.farm.judgement import Call
from slmc.farm.morning import words
from slmc.farm.morning.standing import Morning, Standing, State
from slmc.farm.record import Series
from slmc.farm.tracks import Past
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
    load_ms: float | None
    peak_memory_bytes: int | None
    memory_limit_bytes: int | None
    """Of the report's night."""
    told: tuple[ToldChange, ...]
    """By the report's night."""
    worse: tuple[ToldChange, ...]
    """By earlier ones, and it still stands."""


class MorningReport(Strict):
    format: Annotated[int, Field(ge=1, le=1)] = 1
    night: str
    started: AwareDatetime
    finished: AwareDatetime
    states: dict[State, int]
    series: tuple[SeriesReport, ...]


def report_of(morning: Morning) -> MorningReport:
    return MorningReport(
        night=morning.night.id,
        started=morning.night.started,
        finished=morning.night.finished,
        states=morning.counts(),
        series=tuple(_series(morning.past, one) for one in morning.standings),
    )


def _series(past: Past, one: Standing) -> SeriesReport:
    point = one.point
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
        load_ms=point.load_ms,
        peak_memory_bytes=point.peak_memory_bytes,
        memory_limit_bytes=one.limit,
        told=tuple(_change(past, change) for change in one.told),
        worse=tuple(_change(past, change) for change in one.worse),
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
