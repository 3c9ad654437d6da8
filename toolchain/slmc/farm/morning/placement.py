"""How a bundle runs on a device: by which runtime with which kernels or delegate, in what memory and time."""

from __future__ import annotations

from slmc.farm.morning import words
from slmc.farm.morning.standing import Standing
from slmc.farm.record import Speed
from slmc.farm.tracks import Past
from slmc.validate.words import NOTHING, percent, quantity


def placement(past: Past, one: Standing) -> list[tuple[str, str]]:
    """Name and value of what was measured when it was last asked; what only whole runs tell, of the report's night."""
    point = one.point
    where = None if point.circumstances is None else past.circumstances[point.circumstances]
    speed = None if one.run is None else one.run.speed
    told = {
        "runs on": None if where is None else where.runtime,
        "device": None if where is None else f"{where.model}, {where.os}",
        "class": point.device_class,
        "memory": words.memory(one),
        "a decision": words.milliseconds(point.decision_ms_p50) + _p95(speed),
        "a decision of the control": words.milliseconds(point.control_ms_p50),
        "first load": words.milliseconds(point.load_ms),
    }
    if speed is not None:
        told |= {
            "first token": words.milliseconds(speed.first_token_ms),
            "prefill": words.tokens_per_s(speed.prefill_tokens_per_s),
            "decode": words.tokens_per_s(speed.decode_tokens_per_s),
            "sustained speed": percent(speed.sustained),
            "energy of a decision": NOTHING if speed.energy_mj is None else f"{quantity(speed.energy_mj)} mJ",
        }
    return [(name, value) for name, value in told.items() if value not in (None, NOTHING)]


def _p95(speed: Speed | None) -> str:
    return "" if speed is None else f" (p95 {words.milliseconds(speed.decision_ms_p95)})"
