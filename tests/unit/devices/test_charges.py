"""What batteries tell of their charge: lines and dumps as systems wrote them, and what is in another unit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slmc.devices.android import Android, charge_in
from slmc.devices.charges import SUPPLIES, charge_of_supplies
from slmc.devices.device import Charge
from slmc.devices.linux import Linux
from slmc.devices.macos import MacOS

from .test_android import BATTERY_8, BATTERY_SAMSUNG, STATE, told

DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 200 9 100 9% /\n"
LAPTOP = {
    "type": "Battery",
    "capacity": "80",
    "status": "Discharging",
    "energy_now": "39520000",
    "voltage_now": "11600000",
}
"""A ThinkPad's, whose firmware tells mWh in tens."""
PHONE = {
    "type": "Battery",
    "capacity": "57",
    "status": "Discharging",
    "charge_counter": "1583000",
    "voltage_now": "3854000",
}
MOUSE = {"type": "Battery", "scope": "Device", "capacity": "4", "status": "Discharging"}
MAINS = {"type": "Mains", "online": "0"}
IOREG = """\
+-o AppleSmartBattery  <class AppleSmartBattery, id 0x100000123, registered, matched, active, busy 0 (0 ms), retain 8>
    {
      "AppleRawCurrentCapacity" = 2629
      "BatteryData" = {"Ra03"=78,"DesignCapacity"=4629,"CycleCount"=41,"Voltage"=11690}
      "InstantAmperage" = 18446744073709551386
      "Temperature" = 3040
      "DesignCapacity" = 4629
      "Voltage" = 11696
      "CycleCount" = 41
      "AppleRawMaxCapacity" = 4795
    }
"""
MAC = """\
{ 1.52 1.70 1.81 }
8
Note: No thermal warning level has been recorded
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=4522083)	57%; discharging; 5:14 remaining present: true
"""


def supplies(folder: Path, **batteries: dict[str, str]) -> str:
    """What the script says where these are."""
    for name, files in batteries.items():
        (folder / name).mkdir()
        for file, content in files.items():
            (folder / name / file).write_text(f"{content}\n")
    script = SUPPLIES.replace("/sys/class/power_supply", str(folder))
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False).stdout


def test_energy_is_told_in_microwatt_hours(tmp_path: Path) -> None:
    said = supplies(tmp_path, BAT0=LAPTOP, AC=MAINS, mouse=MOUSE)
    assert said.splitlines()[0] == "battery 80 Discharging"
    assert "battery 4" not in said
    charge = charge_of_supplies(said)
    assert charge == Charge(count=39_520_000, unit_j=0.0036)
    assert charge.count * charge.unit_j == pytest.approx(39.52 * 3600)


@pytest.mark.parametrize("name", ["charge_counter", "charge_now"])
def test_charge_is_told_in_microampere_hours(tmp_path: Path, name: str) -> None:
    files = {key: value for key, value in PHONE.items() if key != "charge_counter"} | {name: "1583000"}
    charge = charge_of_supplies(supplies(tmp_path, battery=files))
    assert charge is not None
    assert charge.count * charge.unit_j == pytest.approx(1.583 * 3600 * 3.854)


def test_of_two_batteries_it_is_not_known_which_is_used(tmp_path: Path) -> None:
    assert charge_of_supplies(supplies(tmp_path, BAT0=LAPTOP, BAT1=LAPTOP)) is None


def test_a_phone_s_gauge_is_not_another_battery(tmp_path: Path) -> None:
    charge = charge_of_supplies(supplies(tmp_path, battery=PHONE, maxfg={**PHONE, "charge_counter": "1"}))
    assert charge is not None
    assert charge.count == 1_583_000


@pytest.mark.parametrize(
    "changes",
    [
        {"charge_counter": "0"},
        {"charge_counter": "-1583000"},
        {"charge_counter": ""},
        {"voltage_now": "3854"},
        {"voltage_now": "0"},
        {"voltage_now": "9" * 30},
    ],
)
def test_what_can_t_be_is_not_told(tmp_path: Path, changes: dict[str, str]) -> None:
    assert charge_of_supplies(supplies(tmp_path, battery=PHONE | changes)) is None


def test_a_machine_without_a_battery(tmp_path: Path) -> None:
    assert supplies(tmp_path, AC=MAINS) == ""
    assert charge_of_supplies("") is None


def test_linux_tells_it() -> None:
    said = "battery 80 Discharging\nsupply /s/BAT0 energy_now 39520000\nsupply /s/BAT0 charge_now \n"
    state = Linux().state(lambda script: DF if script.startswith("df ") else said, "/")
    assert (state.battery, state.charging) == (0.8, False)
    assert state.charge == Charge(count=39_520_000, unit_j=0.0036)


def test_macos_tells_it() -> None:
    state = MacOS().state(lambda script: DF if script.startswith("df ") else MAC + IOREG, "/")
    assert (state.battery, state.charging, state.thermal) == (0.57, False, "none")
    assert state.charge is not None
    assert state.charge.count == 2629
    assert state.charge.unit_j == pytest.approx(3.6 * 11.696)
    assert MacOS().state(lambda script: DF if script.startswith("df ") else MAC, "/").charge is None


@pytest.mark.parametrize(
    ("dump", "joules"),
    [
        (BATTERY_8, 1.583 * 3600 * 3.854),
        (BATTERY_SAMSUNG, 3.83 * 3600 * 4.354),
        (BATTERY_8.replace("1583000", "0"), None),
        (BATTERY_8.replace("1583000", "1583"), None),  # in mAh
        (BATTERY_8.replace("1583000", "-1583000"), None),
        (BATTERY_8.replace("voltage: 3854", "voltage: 4"), None),  # in volts
        (BATTERY_8.replace("level: 57", "level: 0"), None),
        (BATTERY_8 + "  (UPDATES STOPPED -- use 'reset' to restart)\n", None),
        (BATTERY_8.replace("present: true", "present: false"), None),
        ("Can't find service: battery\n", None),
    ],
)
def test_android_s_service_tells_microampere_hours(dump: str, joules: float | None) -> None:
    charge = charge_in(dump)
    assert (None if charge is None else charge.count * charge.unit_j) == pytest.approx(joules)


def test_android_s_drivers_are_asked_first(tmp_path: Path) -> None:
    said = supplies(tmp_path, battery={**PHONE, "charge_counter": "1582999"})
    for drivers, count in ((said, 1_582_999), ("", 1_583_000)):
        answers = STATE | {"/proc/loadavg": STATE["/proc/loadavg"] + drivers}
        state = Android().state(lambda script, answers=answers: told(answers, script), "/data")
        assert state.charge is not None
        assert state.charge.count == count
