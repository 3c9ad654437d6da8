"""What Android tells of itself: properties, and the dumps of its thermal and battery services.

Vendors change these dumps. What is missing or can't be is None; of a phone's facts, an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmc.devices.asking import Ask
from slmc.devices.charges import SUPPLIES, charge_of, charge_of_supplies
from slmc.devices.device import THERMAL, Charge, Facts, State, Thermal
from slmc.devices.linux import CLOCKS, LOAD, clock_share, free_bytes, load_share
from slmc.errors import DeviceError

_FACTS = """
getprop
echo "[cores]: [$(getconf _NPROCESSORS_CONF 2>/dev/null || nproc)]"
echo "[memory]: [$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB.*/\\1/p' /proc/meminfo)]"
"""
_THERMAL = "dumpsys thermalservice 2>/dev/null; true"
_BATTERY = "dumpsys battery 2>/dev/null; true"
_MACHINES = {"arm64-v8a": "aarch64", "armeabi-v7a": "arm", "x86_64": "x86_64", "x86": "i686", "riscv64": "riscv64"}
"""By the first of ro.product.cpu.abilist, which is what programs are best built for."""
_SKIN = 3
"""The type of a temperature that the hand feels: what Android's thermal status goes by."""
_NO_HEAT = (6, 7, 8)
"""Types that tell a battery's voltage, current and charge."""
_HAL = "Current temperatures from HAL:"
"""After this, what sensors say now. Temperatures before it are of when they last crossed a threshold."""
_CHARGING = {2: True, 3: False, 4: False, 5: True}
"""By BatteryManager's status: charging, discharging, not charging, full. 1 is unknown."""
_WHOLE = (500_000, 40_000_000)
"""µAh of a full battery, from a watch's to a large tablet's."""
_POSSIBLE = range(-40, 150)
"""Degrees Celsius that a sensor of a phone may tell; those without a reading tell 0, NaN or what is far off."""


class Android:
    def facts(self, ask: Ask) -> Facts:
        return facts_of(ask(_FACTS))

    def state(self, ask: Ask, folder: str) -> State:
        told, dump = ask(LOAD + CLOCKS + SUPPLIES + "true"), ask(_BATTERY)
        heat, battery = heat_of(ask(_THERMAL)), battery_of(dump)
        felt = (heat.skin, battery.temperature, heat.hottest)
        return State(
            free_bytes=free_bytes(ask, folder),
            load=load_share(told),
            clock=clock_share(told),
            thermal=heat.status,
            temperature=next((degrees for degrees in felt if degrees is not None), None),
            battery=battery.share,
            charging=battery.charging,
            # The drivers' own, where the shell may read it: the service's is as old as its last look at it.
            charge=charge_of_supplies(told) or charge_in(dump),
        )


def facts_of(told: str) -> Facts:
    """From `getprop`'s lines. Raises DeviceError where machine, cores or memory are not told."""
    properties = dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\][ \r]*$", told, re.MULTILINE))
    abi = properties.get("ro.product.cpu.abilist", "").partition(",")[0]
    if abi not in _MACHINES:
        raise DeviceError(f"ro.product.cpu.abilist is {abi!r}", expected=" or ".join(_MACHINES))
    return Facts(
        model=_model(properties),
        system="android",
        os=_system(properties),
        machine=_MACHINES[abi],
        cores=_count(properties, "cores", "nproc"),
        memory_bytes=_count(properties, "memory", "/proc/meminfo") * 1024,
    )


def _count(properties: Mapping[str, str], name: str, source: str) -> int:
    found = re.fullmatch(r"[0-9]{1,12}", properties.get(name, ""))
    if found is None or not int(found[0]):
        raise DeviceError(f"the phone doesn't tell its {name}", expected=f"a number from {source}")
    return int(found[0])


def _model(properties: Mapping[str, str]) -> str:
    """Such as "Google Pixel 8"; some models begin with their maker's name."""
    maker, model = (properties.get(f"ro.product.{name}", "").strip() for name in ("manufacturer", "model"))
    named = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    return named.strip() or "Android phone"


def _system(properties: Mapping[str, str]) -> str:
    """Such as "Android 14 (API 34), build UD1A.231105.004/11010374": an update changes it."""
    names = ("version.release", "version.sdk", "fingerprint")
    release, api, fingerprint = (properties.get(f"ro.build.{name}", "").strip() for name in names)
    build = re.fullmatch(r"[^:]*:[^/]*/([^:]+):.*", fingerprint)
    named = f"Android {release or 'of an unknown version'}" + (f" (API {api})" if api else "")
    return f"{named}, build {build[1] if build else fingerprint}" if fingerprint else named


@dataclass(frozen=True)
class Heat:
    status: Thermal | None
    skin: float | None
    """Degrees Celsius, of the hottest sensor where there are many; so is the other."""
    hottest: float | None


def heat_of(dump: str) -> Heat:
    """From `dumpsys thermalservice`: Android 10 and newer tell a status, 9 sensors alone, older ones nothing."""
    status = re.search(r"^[ \t]*Thermal Status: *([0-6])[ \r]*$", dump, re.MULTILINE)
    overridden = re.search(r"^[ \t]*IsStatusOverride: *true\b", dump, re.MULTILINE)
    now = _temperatures(dump.partition(_HAL)[2]) or _temperatures(dump)
    return Heat(
        status=None if status is None or overridden else THERMAL[int(status[1])],
        skin=max((degrees for kind, degrees in now if kind == _SKIN), default=None),
        hottest=max((degrees for _, degrees in now), default=None),
    )


def _temperatures(text: str) -> Sequence[tuple[int, float]]:
    """Type and degrees of each sensor that tells any."""
    found = re.findall(r"Temperature\{mValue=(-?[0-9]{1,6}(?:\.[0-9]+)?), mType=(-?[0-9]{1,3}),", text)
    told = [(int(kind), float(value)) for value, kind in found]
    return [(kind, degrees) for kind, degrees in told if kind not in _NO_HEAT and degrees and _possible(degrees)]


@dataclass(frozen=True)
class Battery:
    share: float | None
    charging: bool | None
    temperature: float | None
    """Degrees Celsius."""


def battery_of(dump: str) -> Battery:
    """From `dumpsys battery`. A phone without a battery, or one that was told what to say, tells nothing."""
    numbers = _numbers(dump)
    tenths = numbers.get("temperature")
    return Battery(
        share=_share(numbers),
        charging=_CHARGING.get(numbers.get("status", 0)),
        temperature=tenths / 10 if tenths and _possible(tenths / 10) else None,
    )


def charge_in(dump: str) -> Charge | None:
    """By `Charge counter`, in µAh; some phones tell it in another unit, and of another battery than they have."""
    numbers = _numbers(dump)
    counter, share = numbers.get("Charge counter", 0), _share(numbers)
    if not share or not _WHOLE[0] <= counter / share <= _WHOLE[1]:
        return None
    return charge_of(counter, 1e-6, numbers.get("voltage", 0) / 1e3)


def _numbers(dump: str) -> dict[str, int]:
    """Each name's first: vendors add their own below."""
    values = dict(reversed(re.findall(r"^[ \t]*(\w[\w ]*): *(-?[0-9]{1,9}|true|false)[ \r]*$", dump, re.MULTILINE)))
    if "UPDATES STOPPED" in dump or values.get("present") == "false":
        return {}
    return {name: int(value) for name, value in values.items() if value not in ("true", "false")}


def _share(numbers: Mapping[str, int]) -> float | None:
    level, scale = numbers.get("level"), numbers.get("scale")
    return level / scale if level is not None and scale and 0 <= level <= scale else None


def _possible(degrees: float) -> bool:
    return _POSSIBLE.start <= degrees < _POSSIBLE.stop
