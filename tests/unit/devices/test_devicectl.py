"""devicectl's command lines, and what is read of the JSON that others recorded of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from slmc.devices.devicectl import Devicectl, Ended, MissingFile, listed, run_command
from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, MissingToolError

from . import devicectl_outputs as outputs

APP = "org.slmc.SlmcRunner"


class Tool:
    """Answers every command with one output, and keeps the command lines."""

    def __init__(self, told: object, code: int = 0, said: str = "") -> None:
        self._told = told
        self._ended = Ended(code, said)
        self.lines: list[str] = []

    def __call__(self, words: Sequence[str], timeout_s: float) -> Ended:
        written = Path(words[words.index("--json-output") + 1])
        if self._told is not None:
            written.write_text(self._told if isinstance(self._told, str) else json.dumps(self._told))
        self.lines.append(" ".join("FILE" if word == str(written) else word for word in words))
        return self._ended


def success(**result: Any) -> dict[str, Any]:
    return {"info": {"outcome": "success"}, "result": result}


def phone(tool: Tool) -> Devicectl:
    return Devicectl("UDID", tool)


def test_command_lines(tmp_path: Path) -> None:
    tool = Tool(success(apps=[{}], runningProcesses=[]))
    one = phone(tool)
    one.install(tmp_path)
    assert one.installed(APP)
    one.launch(APP)
    one.processes("a")
    one.kill(7)
    one.send(tmp_path / "f", "Documents/g", APP)
    with pytest.raises(MissingFile, match="did not come"):
        one.fetch("Documents/g", tmp_path / "h", APP)
    one.uninstall(APP)
    quick, slow = (f"--timeout {seconds} --quiet --json-output FILE" for seconds in (60, 1800))
    inside = f"--user mobile --domain-type appDataContainer --domain-identifier {APP}"
    assert [line.removeprefix("xcrun devicectl device ") for line in tool.lines] == [
        f"install app --device UDID {slow} {tmp_path}",
        f"info apps --device UDID --bundle-id {APP} {quick}",
        f"process launch --device UDID {quick} {APP}",
        f"info processes --device UDID {quick}",
        f"process terminate --device UDID --pid 7 --kill {quick}",
        f"copy to --device UDID --source {tmp_path}/f --destination Documents/g {inside} {slow}",
        f"copy from --device UDID --source Documents/g --destination {tmp_path}/h {inside} {slow}",
        f"uninstall app --device UDID {quick} {APP}",
    ]


def test_processes_are_the_apps_own() -> None:
    assert phone(Tool(outputs.PROCESSES)).processes("SlmcRunner.app/SlmcRunner") == [1000]
    assert phone(Tool(outputs.PROCESSES)).processes("Runner.app/SlmcRunner") == []


@pytest.mark.parametrize(
    ("told", "kind", "said", "todo"),
    [
        (outputs.NOT_FOUND, LostConnection, "was not found. (Name: 0000", "attached"),
        (outputs.TUNNEL, LostConnection, "tunnel connection failed", "attached"),
        (outputs.LOST_COPY, LostConnection, "file node", "attached"),
        (outputs.LAUNCH_RACE, LostConnection, "failed to launch", "attached"),
        (outputs.NO_FILE, MissingFile, "Documents/nope.txt", None),
        (outputs.LOCKED, DeviceError, "could not be, unlocked", "unlock it"),
        (outputs.LOCKED_IMAGE, DeviceError, "The device is locked", "unlock it"),
        (outputs.UNTRUSTED, DeviceError, "invalid code signature", "VPN & Device Management"),
        (outputs.NO_CAPABILITY, DeviceError, "devicectl: The capability", None),
        (outputs.failed(1, NSLocalizedDescription=outputs.text("Developer Mode is disabled")), DeviceError, "", "turn"),
        (outputs.failed(2, NSLocalizedDescription=outputs.text("It is not paired")), DeviceError, "", "trust this"),
        (outputs.failed(1, NSUnderlyingError=outputs.under(28, "NSPOSIXErrorDomain")), DeviceError, "", "free some"),
    ],
)
def test_what_went_wrong_is_told(told: object, kind: type[DeviceError], said: str, todo: str | None) -> None:
    with pytest.raises(DeviceError) as error:
        phone(Tool(told, code=1, said="for people")).launch(APP)
    assert type(error.value) is kind
    assert said in error.value.what
    assert (error.value.todo is None) if todo is None else (todo in (error.value.todo or ""))
    assert error.value.where == "apple UDID"


@pytest.mark.parametrize("told", [None, "", "{", "[]", '{"info": []}', '{"info": {"outcome": "success"}}', "1"])
def test_without_json_the_text_is_told(told: str | None) -> None:
    with pytest.raises(DeviceError, match="Unknown option"):
        phone(Tool(told, code=64, said="error: Unknown option '--quiet'")).launch(APP)


def test_a_failure_is_one_whatever_the_exit_code() -> None:
    with pytest.raises(DeviceError, match="capability"):
        phone(Tool(outputs.NO_CAPABILITY, code=0)).launch(APP)
    with pytest.raises(DeviceError, match="exit code 3"):
        phone(Tool(success(), code=3)).launch(APP)


def test_one_that_says_nothing_is_lost() -> None:
    with pytest.raises(LostConnection, match="says nothing for 60 s"):
        Devicectl("UDID", lambda words, timeout_s: None).launch(APP)


def test_an_old_copy_is_none(tmp_path: Path) -> None:
    for tool in (Tool(outputs.NO_FILE, code=1), Tool(success())):
        (tmp_path / "f").write_text("old")
        with pytest.raises(MissingFile):
            phone(tool).fetch("Documents/f", tmp_path / "f", APP)
        assert not (tmp_path / "f").exists()


def test_devices_are_listed_with_what_is_to_do() -> None:
    tool = Tool(outputs.XCODE_16)
    found = {one.udid: (one.problem, one.todo) for one in listed(tool)}
    assert tool.lines == ["xcrun devicectl list devices --timeout 60 --quiet --json-output FILE"]
    assert found.pop("00008110-00015D4E1439801E") == ("", "")
    assert {problem for problem, _ in found.values()} == {
        "paired, and not here",
        "not paired with this Mac",
        "Developer Mode is off",
    }
    assert all(todo for _, todo in found.values())
    assert len(found) == 3


def test_xcode_27_lists_them_otherwise() -> None:
    assert [(one.udid, one.problem) for one in listed(Tool(outputs.XCODE_27))] == [
        ("00008110-000559182E90401E", ""),
        ("00008110-000559182E90401F", "Developer Mode is off"),
    ]


@pytest.mark.parametrize("devices", [None, 5, [5], [{}], [{"hardwareProperties": 5}], [{"properties": []}]])
def test_odd_lists_are_no_devices(devices: object) -> None:
    assert listed(Tool(success(devices=devices))) == ()


def test_commands_are_run() -> None:
    assert run_command([sys.executable, "-c", "print('a'); exit(3)"], 60) == Ended(3, "a\n")
    assert run_command([sys.executable, "-c", "import time; time.sleep(100)"], 0.2) is None
    with pytest.raises(MissingToolError, match="Xcode"):
        run_command(["/nothing/xcrun"], 5)
