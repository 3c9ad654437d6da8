"""Dumps are written by hand after AOSP's `dump` methods (ThermalManagerService, BatteryService) of several versions and
what vendors are known to add; none is copied from a phone.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from slmc.devices.android import Android, Battery, Heat, battery_of, facts_of, heat_of
from slmc.devices.device import THERMAL
from slmc.errors import DeviceError

PIXEL = """\
[ro.build.fingerprint]: [google/shiba/shiba:14/UD1A.231105.004/11010374:user/release-keys]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abilist]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[sys.multi]: [one
two]
[cores]: [9]
[memory]: [7724484]
"""
THERMAL_9 = """\
ThermalEventListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
Temperature{mValue=38.0, mType=3, mName=skin}
"""
THERMAL_10 = """\
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 2
	killed: false
	broadcasts count: -1
Thermal Status: 3
Cached temperatures:
	Temperature{mValue=29.0, mType=3, mName=skin, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
	Temperature{mValue=56.2, mType=0, mName=CPU0, mStatus=0}
	Temperature{mValue=58.9, mType=0, mName=CPU1, mStatus=0}
	Temperature{mValue=100.0, mType=8, mName=soc, mStatus=0}
	Temperature{mValue=33.4, mType=2, mName=battery, mStatus=0}
	Temperature{mValue=44.3, mType=3, mName=skin, mStatus=3}
Current cooling devices from HAL:
	CoolingDevice{mValue=4, mType=2, mName=thermal-cpufreq-0}
"""
THERMAL_13 = """\
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 3
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 4
	killed: false
	broadcasts count: -1
Thermal Status: 0
Cached temperatures:
	Temperature{mValue=61.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
	Temperature{mValue=NaN, mType=1, mName=G3D, mStatus=0}
	Temperature{mValue=0.0, mType=3, mName=VIRTUAL-SKIN-CHARGE, mStatus=0}
	Temperature{mValue=31.726, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
	Temperature{mValue=30.9, mType=3, mName=quiet_therm, mStatus=0}
	Temperature{mValue=-273.0, mType=-1, mName=unknown, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-2}
Temperature static thresholds from HAL:
	TemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, \
mHotThrottlingThresholds=[NaN, 39.0, 43.0, 45.0, 46.5, 52.0, 55.0], \
mColdThrottlingThresholds=[NaN, NaN, NaN, NaN, NaN, NaN, NaN]}
"""
BATTERY_8 = """\
Current Battery Service state:
  AC powered: false
  USB powered: false
  Wireless powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 1583000
  status: 3
  health: 2
  present: true
  level: 57
  scale: 100
  voltage: 3854
  temperature: 265
  technology: Li-ion
"""
BATTERY_SAMSUNG = """\
Current Battery Service state:
  AC powered: true
  USB powered: false
  Wireless powered: false
  Dock powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 3830000
  status: 5
  health: 2
  present: true
  level: 100
  scale: 100
  voltage: 4354
  temperature: 318
  technology: Li-ion
  batteryMiscEvent: 65536
  batteryCurrentEvent: 0
  mSecPlugTypeSummary: 1
  LED Charging: true
  LED Low Battery: true
  current now: -3
  charge counter: 3830000
  Adaptive Fast Charging Settings: true
  Super Fast Charging Settings: true
FEATURE_WIRELESS_FAST_CHARGER_CONTROL: true
  mWasUsedWirelessFastChargerPreviously: false
  level: 3
"""


def test_facts_of_a_pixel() -> None:
    facts = facts_of(PIXEL)
    assert (facts.model, facts.system, facts.machine) == ("Google Pixel 8", "android", "aarch64")
    assert facts.os == "Android 14 (API 34), build UD1A.231105.004/11010374"
    assert (facts.cores, facts.memory_bytes) == (9, 7724484 * 1024)


@pytest.mark.parametrize(
    ("maker", "model", "named"),
    [
        ("samsung", "SM-S918B", "samsung SM-S918B"),
        ("motorola", "moto g54 5G", "motorola moto g54 5G"),
        ("Xiaomi", "Xiaomi 13T", "Xiaomi 13T"),
        ("HUAWEI", "Huawei P30", "Huawei P30"),
        ("", "rk3588_s", "rk3588_s"),
        ("OnePlus", "", "OnePlus"),
        ("", "", "Android phone"),
    ],
)
def test_a_maker_is_named_once(maker: str, model: str, named: str) -> None:
    told = PIXEL.replace("[Google]", f"[{maker}]").replace("[Pixel 8]", f"[{model}]")
    assert facts_of(told).model == named


@pytest.mark.parametrize(
    ("fingerprint", "build"),
    [
        ("samsung/dm3qxeea/dm3q:13/TP1A.220624.014/S918BXXU3AWF7:user/release-keys", "TP1A.220624.014/S918BXXU3AWF7"),
        ("engineer's own", "engineer's own"),
    ],
)
def test_a_build_is_named_as_its_fingerprint_does(fingerprint: str, build: str) -> None:
    told = PIXEL.replace("google/shiba/shiba:14/UD1A.231105.004/11010374:user/release-keys", fingerprint)
    assert facts_of(told).os == f"Android 14 (API 34), build {build}"


def test_properties_that_are_not_set_are_not_told() -> None:
    told = "".join(line for line in PIXEL.splitlines(keepends=True) if "build" not in line)
    assert facts_of(told).os == "Android of an unknown version"


@pytest.mark.parametrize(
    ("abis", "machine"),
    [("arm64-v8a,armeabi-v7a,armeabi", "aarch64"), ("armeabi-v7a,armeabi", "arm"), ("x86_64,arm64-v8a", "x86_64")],
)
def test_the_machine_is_what_programs_are_best_built_for(abis: str, machine: str) -> None:
    assert facts_of(PIXEL.replace("[arm64-v8a]", f"[{abis}]")).machine == machine


@pytest.mark.parametrize("gone", ["cpu.abilist", "cores", "memory"])
def test_what_a_phone_must_tell_is_named_where_it_does_not(gone: str) -> None:
    told = "".join(line for line in PIXEL.splitlines(keepends=True) if gone not in line)
    with pytest.raises(DeviceError, match=gone):
        facts_of(told)
    with pytest.raises(DeviceError, match=gone):
        facts_of(f"{told}[ro.product.{gone}]: [pdp-11]\n[{gone}]: []\n")


def test_line_ends_of_a_terminal_do_no_harm() -> None:
    assert facts_of(PIXEL.replace("\n", "\r\n")) == facts_of(PIXEL)
    assert heat_of(THERMAL_10.replace("\n", "\r\n")) == heat_of(THERMAL_10)
    assert battery_of(BATTERY_8.replace("\n", "\r\n")) == battery_of(BATTERY_8)


@pytest.mark.parametrize(
    ("dump", "heat"),
    [
        ("Can't find service: thermalservice\n", Heat(None, None, None)),
        ("", Heat(None, None, None)),
        (THERMAL_9, Heat(None, 38.0, 38.0)),
        (THERMAL_10, Heat("severe", 44.3, 58.9)),
        (THERMAL_13, Heat("none", 31.726, 31.726)),
        (THERMAL_10.replace("Override: false", "Override: true"), Heat(None, 44.3, 58.9)),
        (THERMAL_10.replace("Status: 3", "Status: 7"), Heat(None, 44.3, 58.9)),
        (THERMAL_10.replace("Status: 3", "Status: -1"), Heat(None, 44.3, 58.9)),
        (THERMAL_10.replace("44.3", "44300.0"), Heat("severe", None, 58.9)),
    ],
)
def test_heat(dump: str, heat: Heat) -> None:
    assert heat_of(dump) == heat


def test_sensors_that_say_nothing_now_leave_what_they_said_last() -> None:
    dump, _, _ = THERMAL_13.partition("\tTemperature{mValue=NaN")
    assert heat_of(dump).skin == 61.0


@pytest.mark.parametrize(
    ("dump", "battery"),
    [
        (BATTERY_8, Battery(0.57, False, 26.5)),
        (BATTERY_SAMSUNG, Battery(1.0, True, 31.8)),
        ("Can't find service: battery\n", Battery(None, None, None)),
        (BATTERY_8.replace("present: true", "present: false"), Battery(None, None, None)),
        (BATTERY_8 + "  (UPDATES STOPPED -- use 'reset' to restart)\n", Battery(None, None, None)),
        (BATTERY_8.replace("status: 3", "status: 1"), Battery(0.57, None, 26.5)),
        (BATTERY_8.replace("status: 3", "status: 2"), Battery(0.57, True, 26.5)),
        (BATTERY_8.replace("level: 57", "level: 4294967"), Battery(None, False, 26.5)),
        (BATTERY_8.replace("scale: 100", "scale: 0"), Battery(None, False, 26.5)),
        (BATTERY_8.replace("temperature: 265", "temperature: -2732"), Battery(0.57, False, None)),
        (BATTERY_8.replace("temperature: 265", "temperature: -55"), Battery(0.57, False, -5.5)),
        (BATTERY_8.replace("temperature: 265", "temperature: none"), Battery(0.57, False, None)),
    ],
)
def test_battery(dump: str, battery: Battery) -> None:
    assert battery_of(dump) == battery


STATE = {
    "dumpsys thermalservice": THERMAL_13,
    "dumpsys battery": BATTERY_8,
    "/proc/loadavg": "load 4.00 8\nclock 1500000 2000000\nclock 2367000 2367000\n",
    "df ": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/dm-48 113246208 9 104857600 1% /data\n",
}


def told(answers: dict[str, str], script: str) -> str:
    return next(answer for asked, answer in answers.items() if asked in script)


def test_state() -> None:
    state = Android().state(lambda script: told(STATE, script), "/data/local/tmp/slmc")
    assert (state.free_bytes, state.load, state.clock) == (100 << 30, 0.5, 0.75)
    assert (state.thermal, state.temperature) == ("none", 31.726)
    assert (state.battery, state.charging) == (0.57, False)


def test_the_temperature_is_the_battery_s_where_no_skin_is_told() -> None:
    answers = STATE | {"dumpsys thermalservice": THERMAL_13.replace("mType=3", "mType=0")}
    assert Android().state(lambda script: told(answers, script), "/data").temperature == 26.5
    answers |= {"dumpsys battery": ""}
    assert Android().state(lambda script: told(answers, script), "/data").temperature == 31.726


def test_a_phone_that_tells_nothing_has_its_storage_alone() -> None:
    silent = dict.fromkeys(STATE, "") | {"df ": STATE["df "], "/proc/loadavg": "load  8\n"}
    state = Android().state(lambda script: told(silent, script), "/data")
    assert state.free_bytes == 100 << 30
    assert not any(value is not None for name, value in state if name != "free_bytes")


DUMPS = (PIXEL, THERMAL_9, THERMAL_10, THERMAL_13, BATTERY_8, BATTERY_SAMSUNG)


@some.composite
def damaged(draw: some.DrawFn) -> str:
    """A dump with a stretch of it replaced, or any text."""
    dump = draw(some.sampled_from(DUMPS))
    start, end = sorted(draw(some.tuples(*[some.integers(0, len(dump))] * 2)))
    between = draw(some.text() | some.text(alphabet="-0123456789.eENa:{}=[]\n\r\t "))
    return draw(some.sampled_from([dump[:start] + between + dump[end:], between]))


@given(damaged())
def test_no_dump_can_do_harm(dump: str) -> None:
    heat, battery = heat_of(dump), battery_of(dump)
    assert heat.status in (None, *THERMAL)
    assert all(value is None or -40 <= value < 150 for value in (heat.skin, heat.hottest, battery.temperature))
    assert battery.share is None or 0 <= battery.share <= 1
    try:
        facts = facts_of(dump)
    except DeviceError:
        return
    assert facts.cores > 0


@given(
    status=some.integers(0, 6),
    sensors=some.lists(some.tuples(some.integers(-1, 19), some.integers(-400, 1499)), max_size=20),
)
def test_all_that_sensors_can_say_is_read(status: int, sensors: list[tuple[int, int]]) -> None:
    lines = [f"\tTemperature{{mValue={tenths / 10}, mType={kind}, mName=x, mStatus=0}}" for kind, tenths in sensors]
    heat = heat_of("\n".join([f"Thermal Status: {status}", "Current temperatures from HAL:", *lines, ""]))
    assert heat.status == THERMAL[status]
    assert heat.skin == max((tenths / 10 for kind, tenths in sensors if kind == 3 and tenths), default=None)
    hot = [tenths / 10 for kind, tenths in sensors if kind not in (6, 7, 8) and tenths]
    assert heat.hottest == max(hot, default=None)
