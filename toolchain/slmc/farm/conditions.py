"""What a device is like while its speed is measured: when it is waited for, and when what it shows is not believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from slmc.devices.device import THERMAL, State
from slmc.farm.record import Conditions

WARM = THERMAL.index("light")
"""Beyond this a device slows itself down so much that it is left to cool."""
LOW = 0.2
"""Of a battery that is not being charged: below, phones save power, or end in the middle."""
POLL_S = 10.0


def cool(state: Callable[[], State], patience: float, sleep: Callable[[float], None]) -> tuple[State, float]:
    """Wait while the device is hot: how it is then, maybe hot still, and what is left of the patience."""
    while is_hot(now := state()) and patience >= POLL_S:
        sleep(POLL_S)
        patience -= POLL_S
    return now, patience


def is_hot(state: State) -> bool:
    return state.thermal is not None and THERMAL.index(state.thermal) > WARM


def is_low(state: State) -> bool:
    return state.battery is not None and state.battery < LOW and not state.charging


def conditions_of(states: Sequence[State]) -> Conditions:
    """In the order of time."""
    heat = [THERMAL.index(one.thermal) for one in states if one.thermal is not None]
    return Conditions(
        load=max(_told(one.load for one in states), default=None),
        clock=min(_told(one.clock for one in states), default=None),
        thermal=THERMAL[max(heat)] if heat else None,
        temperature=max(_told(one.temperature for one in states), default=None),
        battery=min(_told(one.battery for one in states), default=None),
        charging=states[-1].charging,
    )


def _told(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def described(found: Conditions) -> str:
    """Such as "load 0.40 a core, clock at 60%, severe heat, 44 °C, battery 15%"; empty where nothing is told."""
    told = [
        "" if found.load is None else f"load {found.load:.2f} a core",
        "" if found.clock is None else f"clock at {found.clock:.0%}",
        "" if found.thermal in (None, "none") else f"{found.thermal} heat",
        "" if found.temperature is None else f"{found.temperature:.0f} °C",
        "" if found.battery is None else f"battery {found.battery:.0%}" + (", charging" if found.charging else ""),
    ]
    return ", ".join(filter(None, told))
