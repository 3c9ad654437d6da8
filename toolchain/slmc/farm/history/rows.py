"""A run as a row of numbers and texts, and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from slmc import digest
from slmc.farm.record import Accuracy, Circumstances, Conditions, Control, Ladder, Run, Series, Speed

Row = Mapping[str, Any]
"""By column, as the driver takes and gives it."""

_ACCURACY = ("items", "right", "asked")
_SPEED = tuple(name for name in Speed.model_fields if name not in ("reason", "conditions"))
_SERIES = tuple(Series.model_fields)
_CIRCUMSTANCES = tuple(Circumstances.model_fields)


def circumstances_row(value: Circumstances) -> dict[str, Any]:
    return {"digest": digest.of_value(value.model_dump()), **value.model_dump()}


def ladder_row(value: Ladder) -> dict[str, Any]:
    return {"digest": digest.of_value(value.model_dump()), "content": value.model_dump_json()}


def result_row(run: Run) -> dict[str, Any]:
    """Of `results`, without its keys and what is kept in other tables; the bits as bytes."""
    accuracy: Row = {name: run.accuracy and getattr(run.accuracy, name) for name in _ACCURACY}
    speed: Row = {name: run.speed and getattr(run.speed, name) for name in _SPEED}
    conditions = run.speed and run.speed.conditions
    return {
        "outcome": run.outcome,
        "reason": run.reason,
        "peak_memory_bytes": run.peak_memory_bytes,
        "memory_limit_bytes": run.memory_limit_bytes,
        "device_class": run.device_class,
        "answered": run.accuracy and base64.b64decode(run.accuracy.answered),
        "speed_reason": run.speed and run.speed.reason,
        "conditions": conditions and conditions.model_dump_json(),
        **accuracy,
        **speed,
    }


def run_of(series: Row, circumstances: Row | None, ladder: Row | None, result: Row) -> Run:
    """Raises ValueError where it is not what was once put in."""
    return Run(
        series=Series(**{name: series[name] for name in _SERIES}),
        circumstances=None
        if circumstances is None
        else Circumstances(**{name: circumstances[name] for name in _CIRCUMSTANCES}),
        outcome=result["outcome"],
        reason=result["reason"],
        accuracy=_accuracy(result),
        speed=_speed(result),
        peak_memory_bytes=result["peak_memory_bytes"],
        memory_limit_bytes=result["memory_limit_bytes"],
        device_class=result["device_class"],
        ladder=None if ladder is None else Ladder.model_validate_json(ladder["content"]),
    )


def control_of(row: Row) -> Control:
    """Raises ValueError likewise."""
    return Control(**{name: row[name] for name in Control.model_fields})


def _accuracy(result: Row) -> Accuracy | None:
    if result["items"] is None:
        return None
    answered = base64.b64encode(result["answered"]).decode()
    return Accuracy(answered=answered, **{name: result[name] for name in _ACCURACY})


def _speed(result: Row) -> Speed | None:
    if result["verdict"] is None:
        return None
    told = result["conditions"]
    return Speed(
        reason=result["speed_reason"] or "",
        conditions=None if told is None else Conditions.model_validate_json(told),
        **{name: result[name] for name in _SPEED},
    )
