"""What a battery's own counter says is left in it, in joules: how much a program took is the difference.

Linux's drivers tell `energy_now` in µWh, or `charge_now` or `charge_counter` in µAh beside `voltage_now` in µV
(Documentation/ABI/testing/sysfs-class-power), Android's battery service µAh and mV, macOS mAh and mV.
"""

from __future__ import annotations

import re

from slmc.devices.device import Charge

WATT_HOUR_J = 3600.0
_VOLTS = (2.0, 60.0)
"""Of a battery, from one cell to sixteen: what lies beyond is in another unit than it should be."""
SUPPLIES = """
for b in /sys/class/power_supply/*; do
  [ "$(cat $b/type)" = Battery ] && [ "$(cat $b/scope)" != Device ] || continue
  echo battery "$(cat $b/capacity)" "$(cat $b/status)"
  for n in energy_now charge_now charge_counter voltage_now; do echo supply $b $n "$(cat $b/$n)"; done
done 2>/dev/null
"""
"""Of the system's own batteries, not of a mouse's: lines `battery PERCENT STATUS`, and `supply PATH NAME NUMBER` for
`charge_of_supplies`."""


def charge_of_supplies(told: str) -> Charge | None:
    """Of a system with one battery, or one that Android calls so: of several it is not known which is used."""
    found = re.findall(r"^supply (\S+) (\w+) (\d{1,15})$", told, re.MULTILINE)
    paths = {path for path, _, _ in found}
    whole = {path for path in paths if path.endswith("/battery")} or paths
    if len(whole) != 1:
        return None
    values = {name: int(value) for path, name, value in found if path in whole and int(value)}
    if "energy_now" in values:
        return Charge(count=values["energy_now"], unit_j=WATT_HOUR_J / 1e6)
    counter = values.get("charge_now", values.get("charge_counter", 0))
    return charge_of(counter, 1e-6, values.get("voltage_now", 0) / 1e6)


def charge_of(count: int, unit_ah: float, volts: float) -> Charge | None:
    """Of a counter of ampere hours; None for one that stands at nothing, or without a battery's voltage."""
    if count <= 0 or not _VOLTS[0] <= volts <= _VOLTS[1]:
        return None
    return Charge(count=count, unit_j=unit_ah * WATT_HOUR_J * volts)
