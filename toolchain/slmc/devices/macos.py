"""What macOS tells of itself: sysctl, pmset and ioreg. Written by their manual pages; not run on a Mac."""

from __future__ import annotations

import re

from slmc.devices.asking import Ask
from slmc.devices.charges import charge_of
from slmc.devices.device import Charge, Facts, State, Thermal
from slmc.devices.linux import free_bytes

_FACTS = "sysctl -n hw.model hw.machine hw.ncpu hw.memsize && sw_vers -productVersion"
_STATE = "sysctl -n vm.loadavg hw.ncpu; pmset -g therm; pmset -g batt; ioreg -rn AppleSmartBattery; true"


class MacOS:
    def facts(self, ask: Ask) -> Facts:
        model, machine, cores, memory, version = ask(_FACTS).split()
        return Facts(
            model=model,
            system="macos",
            os=f"macOS {version}",
            machine={"arm64": "aarch64"}.get(machine, machine),
            cores=int(cores),
            memory_bytes=int(memory),
        )

    def state(self, ask: Ask, folder: str) -> State:
        told = ask(_STATE)
        load = re.match(r"\{ ([\d.,]+) .*\}\n(\d+)", told)
        limit = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", told)
        battery = re.search(r"(\d+)%;\s*([\w ]+);", told)
        clock = None if limit is None else min(int(limit[1]), 100) / 100
        return State(
            free_bytes=free_bytes(ask, folder),
            load=None if load is None else float(load[1].replace(",", ".")) / int(load[2]),
            clock=clock,
            thermal=_thermal(told, clock),
            temperature=None,
            battery=None if battery is None else min(int(battery[1]), 100) / 100,
            charging=None if battery is None else battery[2] != "discharging",
            charge=_charge(told),
        )


def _charge(told: str) -> Charge | None:
    """Of AppleSmartBattery's own lines, in mAh and mV; dictionaries within it have no spaces around `=`."""
    found = dict(re.findall(r'"(AppleRawCurrentCapacity|Voltage)" = (\d{1,9})$', told, re.MULTILINE))
    return charge_of(int(found.get("AppleRawCurrentCapacity", 0)), 1e-3, int(found.get("Voltage", 0)) / 1e3)


def _thermal(told: str, clock: float | None) -> Thermal | None:
    """`pmset -g therm` names a level where the system has recorded one; Apple silicon tells no speed limit."""
    level = re.search(r"[Tt]hermal [Ww]arning [Ll]evel\D*(\d+)", told)
    if level is not None:
        return "moderate" if int(level[1]) else "none"
    if clock is not None and clock < 1:
        return "light"
    return "none" if "No thermal warning level has been recorded" in told else None
