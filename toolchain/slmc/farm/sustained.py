"""Speed that lasts: a bundle asked without a pause in one process, and what a decision then takes from the battery.

The device is cool when it begins, and as hot as it becomes when it ends: the last tenth of the time over the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slmc.devices.device import State
from slmc.farm.conditions import cool, is_hot, is_low
from slmc.farm.farm_file import SpeedPlan
from slmc.runners.contract import TENTHS, Result

LEAST = 20
"""Decisions in a tenth: a rate of fewer is told too coarsely."""
STEPS = 10
"""Of the battery's counter: a drop of fewer is told too coarsely."""


@dataclass(frozen=True)
class Sustained:
    share: float | None
    """Decisions in the last tenth over those in the first."""
    energy_mj: float | None
    """Of a decision."""
    reason: str
    """Why there is no share; empty where there is one."""


def sustain(
    ask: Callable[[], Result],
    state: Callable[[], State],
    plan: SpeedPlan,
    before: Sequence[State],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Sustained:
    """`ask` has the bundle answer for the time of the plan; `before` are states of the device that are known already.

    Raises what `ask` raises.
    """
    now, _ = cool(state, plan.cool_down_s, sleep)
    result = ask()
    counts = result.footer.sustained or (0,) * TENTHS
    energy = energy_mj([*before, now, state()], len(result.answers) + sum(counts))
    if is_hot(now) or is_low(now):
        why = "the device was hot before it began" if is_hot(now) else "its battery was low before it began"
        return Sustained(None, energy, why)
    if min(counts[0], counts[-1]) < LEAST:
        tenth = f"{plan.sustained_s / TENTHS:g} s"
        return Sustained(
            None, energy, f"{counts[0]} decisions in the first {tenth} and {counts[-1]} in the last {tenth}"
        )
    return Sustained(counts[-1] / counts[0], energy, "")


def energy_mj(states: Sequence[State], decisions: int) -> float | None:
    """Of a decision, from what the battery's counter lost between the last two states; None where it was charged, tells
    nothing, or lost fewer than STEPS of the counter's own steps: those divide all that it ever told.
    """
    charges = [one.charge for one in states if one.charge is not None]
    if any(one.charge is None or one.charging is not False for one in states[-2:]):
        return None
    before, after = charges[-2:]
    lost, step = before.count - after.count, math.gcd(*(one.count for one in charges))
    if lost < STEPS * step:
        return None
    # A load lowers the voltage: the mean of both, where joules before less joules after would count that in.
    return lost * (before.unit_j + after.unit_j) / 2 * 1000 / decisions
