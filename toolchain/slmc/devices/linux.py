"""What Linux tells of itself: /proc and /sys, where Android tells the same."""

from __future__ import annotations

import re
import shlex

from slmc.devices.asking import Ask
from slmc.devices.charges import SUPPLIES, charge_of_supplies
from slmc.devices.device import Facts, State
from slmc.errors import DeviceError

_FACTS = """
uname -m; uname -r; getconf _NPROCESSORS_ONLN
sed -n 's/^MemTotal: *//p' /proc/meminfo
(. /etc/os-release && echo "$PRETTY_NAME") 2>/dev/null || echo Linux
cat /proc/device-tree/model /sys/devices/virtual/dmi/id/product_name 2>/dev/null | tr '\\0' '\\n' | head -n 1
"""
CLOCKS = """
for c in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
  [ -r $c/scaling_max_freq ] && echo clock $(cat $c/scaling_max_freq $c/cpuinfo_max_freq)
done 2>/dev/null
"""
"""Lines `clock NOW EVER`, in kHz, for `clock_share`."""
LOAD = 'echo load "$(cut -d " " -f 1 /proc/loadavg)" "$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc)"\n'
"""A line `load PROCESSES CORES`, for `load_share`."""
_HEAT = """
for z in /sys/class/thermal/thermal_zone*; do echo heat "$(cat $z/temp)"; done 2>/dev/null
"""


class Linux:
    def facts(self, ask: Ask) -> Facts:
        machine, kernel, cores, memory, distribution, *model = ask(_FACTS).splitlines()
        return Facts(
            model=model[0].strip() if model and model[0].strip() else f"{machine} machine",
            system="linux",
            os=f"{distribution}, Linux {kernel}",
            machine=machine,
            cores=int(cores),
            memory_bytes=int(memory.split()[0]) * 1024,
        )

    def state(self, ask: Ask, folder: str) -> State:
        told = ask(LOAD + CLOCKS + _HEAT + SUPPLIES + "true")
        battery = re.search(r"^battery (\d+) (\w+)", told, re.MULTILINE)
        heat = [int(milli) / 1000 for milli in re.findall(r"^heat (\d+)$", told, re.MULTILINE)]
        return State(
            free_bytes=free_bytes(ask, folder),
            load=load_share(told),
            clock=clock_share(told),
            thermal=None,  # zones tell degrees, and none which are too many
            temperature=max((degrees for degrees in heat if 0 < degrees < 150), default=None),
            battery=None if battery is None else min(int(battery[1]), 100) / 100,
            charging=None if battery is None else battery[2] in ("Charging", "Full"),
            charge=charge_of_supplies(told),
        )


def free_bytes(ask: Ask, folder: str) -> int:
    """By POSIX's `df -Pk`."""
    told = ask(f"df -Pk {shlex.quote(folder)}")
    found = re.search(r"\s(\d+)\s+\d+%\s+/", told.splitlines()[-1] if told.strip() else "")
    if found is None:
        raise DeviceError(f"df does not tell the free storage: {told.strip()[-200:]!r}", where=folder)
    return int(found[1]) * 1024


def clock_share(told: str) -> float | None:
    """The least, over the cores, of the highest clock now over the highest ever."""
    clocks = re.findall(r"^clock (\d+) (\d+)$", told, re.MULTILINE)
    return min((min(int(now) / int(ever), 1.0) for now, ever in clocks if int(ever)), default=None)


def load_share(told: str) -> float | None:
    found = re.search(r"^load (\d+(?:\.\d+)?) (\d+)$", told, re.MULTILINE)
    return None if found is None or not int(found[2]) else float(found[1]) / int(found[2])
