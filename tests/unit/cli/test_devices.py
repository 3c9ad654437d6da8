"""`slmc devices`: what can't be reached is a row with its reason, and text from a device is only text."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from slmc.cli import devices
from slmc.devices.devicectl import Listed
from slmc.errors import DeviceError, InputError, MissingToolError


def test_a_machine_that_cant_be_reached_is_listed_beside_the_others() -> None:
    listed = CliRunner().invoke(devices.command, ["ssh:nobody@127.0.0.1:1", "local", "--json"])
    gone, here = json.loads(listed.stdout)
    assert isinstance(listed.exception, DeviceError)
    assert (gone["device"], gone["facts"], gone["runs"]) == ("ssh:nobody@127.0.0.1:1", None, None)
    assert "can't be reached" in gone["problem"]
    assert here["problem"] == ""


def test_what_a_device_says_is_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "_look", lambda name: devices.Seen(name, None, None, None, "[bold]x[/]y", "[/red]"))
    with pytest.raises(DeviceError):
        devices.command.main(["local"], standalone_mode=False)
    assert "[bold]x[/]y" in capsys.readouterr().out


def test_phones_without_their_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise MissingToolError("phones need adbutils", todo="pip install 'slmc[farm]'")

    monkeypatch.setattr(devices, "attached", missing)
    here, phones = json.loads(CliRunner().invoke(devices.command, ["--json"], catch_exceptions=False).stdout)
    assert here["device"] == "local"
    assert (phones["device"], phones["todo"]) == ("adb", "pip install 'slmc[farm]'")


def test_iphones_are_listed_with_what_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (Listed("AAAA", "", ""), Listed("BBBB", "Developer Mode is off", "turn it on"))
    monkeypatch.setattr(devices, "_phones", list)
    monkeypatch.setattr(devices, "listed", lambda: found)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/xcrun" if name == "xcrun" else None)
    monkeypatch.delenv("SLMC_IOS_RUNNER", raising=False)
    told = json.loads(CliRunner().invoke(devices.command, ["--json"], catch_exceptions=False).stdout)[1:]
    assert [(one["device"], one["problem"]) for one in told] == [
        ("apple:AAAA", "an iPhone needs the runner app"),
        ("apple:BBBB", "Developer Mode is off"),
    ]
    assert "--runner-app" in told[0]["todo"]
    assert told[1]["todo"] == "turn it on"


def test_a_mac_without_devicectl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise DeviceError("unable to find utility", todo="install Xcode")

    monkeypatch.setattr(devices, "_phones", list)
    monkeypatch.setattr(devices, "listed", refuse)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/xcrun")
    told = json.loads(CliRunner().invoke(devices.command, ["--json"], catch_exceptions=False).stdout)[1]
    assert (told["device"], told["todo"]) == ("apple", "install Xcode")


def test_what_is_no_device_is_refused() -> None:
    for written in ("usb:1", "ssh:", "adb:", "apple:", "ssh:-oProxyCommand=x", ""):
        asked = CliRunner().invoke(devices.command, [written])
        assert isinstance(asked.exception, InputError), written
