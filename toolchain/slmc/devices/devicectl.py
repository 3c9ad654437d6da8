"""An iPhone or iPad, through Apple's devicectl, which knows its cable or its place in the network.

Its text is for people; what it writes to `--json-output` is for programs: `info.outcome`, and `result` or `error`.
Options and shapes are those of outputs that others recorded, jsonVersion 2 to 5: flutter/flutter,
packages/flutter_tools/test/general.shard/ios/core_devices_test.dart; qt-creator, tst_devicectlutils.cpp; and
expo/expo/pull/48001 for Xcode 27, which moves a device's facts to `properties` and lists simulators too. Not run here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, MissingToolError
from slmc.runners.launch import TAIL

ASK_S, COPY_S = 60.0, 1800.0
LATE_S = 15.0
"""devicectl ends itself at its own timeout; this long after, it is ended."""
XCODE = "install Xcode 16 or newer, and choose it: `sudo xcode-select -s /Applications/Xcode.app`"
_OWNER = ("--user", "mobile")
"""Whose the files are that are copied. By default root's, which the app could not remove."""


@dataclass(frozen=True)
class Ended:
    """A command."""

    code: int
    said: str
    """Both outputs."""


Run = Callable[[Sequence[str], float], Ended | None]
"""Runs a command; None where it took longer than so many seconds, and was ended."""


class MissingFile(DeviceError):
    """The device has no file of that name."""


@dataclass(frozen=True)
class Listed:
    """A device that this Mac is paired with, or sees."""

    udid: str
    problem: str
    """Why it can't be used; empty where nothing is known against it."""
    todo: str


def run_command(words: Sequence[str], timeout_s: float) -> Ended | None:
    """Raises MissingToolError where there is no such program."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=timeout_s,
            start_new_session=True,  # Ctrl-C is for slmc, which ends what it started
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise MissingToolError(f"{words[0]}: {error.strerror}, which comes with a Mac's Xcode", todo=XCODE) from None
    return Ended(done.returncode, done.stdout.decode(errors="replace"))


def listed(run: Run = run_command) -> tuple[Listed, ...]:
    """iPhones and iPads, simulators left out. Raises MissingToolError, DeviceError."""
    result = _asked(run, ("list", "devices"), (), ASK_S, "devicectl")
    found = [_listed(device) for device in _maps(result.get("devices"))]
    return tuple(device for device in found if device is not None)


class Devicectl:
    """All calls raise LostConnection where the device can't be reached, DeviceError where it refuses."""

    def __init__(self, udid: str, run: Run = run_command) -> None:
        self._udid = udid
        self._run = run

    @property
    def address(self) -> str:
        return f"apple {self._udid}"

    def install(self, app: Path) -> None:
        """Over an older one, whose files stay."""
        self._ask("install", "app", more=(str(app),), timeout_s=COPY_S)

    def installed(self, app: str) -> bool:
        return bool(_maps(self._ask("info", "apps", "--bundle-id", app).get("apps")))

    def uninstall(self, app: str) -> None:
        """With all its files."""
        self._ask("uninstall", "app", more=(app,))

    def launch(self, app: str) -> None:
        """One that runs already is left alone."""
        self._ask("process", "launch", more=(app,))

    def processes(self, executable: str) -> list[int]:
        """Of an app, by its program's path below the folder of apps: NAME.app/NAME."""
        running = _maps(self._ask("info", "processes").get("runningProcesses"))
        ours = [one for one in running if str(one.get("executable", "")).endswith(f"/{executable}")]
        return [pid for one in ours if isinstance(pid := one.get("processIdentifier"), int)]

    def kill(self, pid: int) -> None:
        self._ask("process", "terminate", "--pid", str(pid), "--kill")

    def send(self, path: Path, to: str, app: str) -> None:
        """Write a file into an app's container, over what was there; its folder exists."""
        self._copy("to", str(path), to, app)

    def fetch(self, name: str, to: Path, app: str) -> None:
        """Copy a file from an app's container. Raises MissingFile too; nothing is at `to` then."""
        to.unlink(missing_ok=True)
        try:
            self._copy("from", name, str(to), app)
        except BaseException:
            to.unlink(missing_ok=True)
            raise
        if not to.is_file():
            raise MissingFile(f"{name} did not come", where=self.address)

    def _copy(self, way: str, source: str, to: str, app: str) -> None:
        container = ("--domain-type", "appDataContainer", "--domain-identifier", app)
        self._ask("copy", way, "--source", source, "--destination", to, *_OWNER, *container, timeout_s=COPY_S)

    def _ask(self, *words: str, more: Sequence[str] = (), timeout_s: float = ASK_S) -> Mapping[str, object]:
        command = ("device", *words[:2], "--device", self._udid, *words[2:])
        return _asked(self._run, command, more, timeout_s, self.address)


def _asked(run: Run, words: Sequence[str], more: Sequence[str], timeout_s: float, where: str) -> Mapping[str, object]:
    """The result, whose shape is the command's."""
    with TemporaryDirectory() as folder:
        written = Path(folder) / "told.json"
        options = ["--timeout", f"{timeout_s:.0f}", "--quiet", "--json-output", str(written)]
        ended = run(["xcrun", "devicectl", *words, *options, *more], timeout_s + LATE_S)
        if ended is None:
            raise LostConnection(f"devicectl says nothing for {timeout_s:.0f} s", where=where, todo=_ATTACH)
        told = _read(written)
    info, error = _map(told.get("info")), _map(told.get("error"))
    if ended.code == 0 and info.get("outcome") == "success":
        return _map(told.get("result"))
    raise _failure(error, ended.said.strip()[-TAIL:] or f"exit code {ended.code}", where)


def _read(path: Path) -> Mapping[str, object]:
    try:
        return _map(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


# ---- What went wrong ------------------------------------------------------------------------------------------------

_ATTACH = (
    "see that the device is on, unlocked, and attached by cable or in this network: `xcrun devicectl list devices`"
)
_PAIR = "attach it by cable, unlock it and trust this computer: `xcrun devicectl manage pair --device UDID`"
_MODE = "turn on Settings > Privacy & Security > Developer Mode on the device"
_PERSON = {
    r"\b(un)?locked\b": "unlock it, and set Settings > Display & Brightness > Auto-Lock to Never",
    "developer mode": _MODE,
    r"\b(un)?paired\b": _PAIR,
    r"\btrust(ed)?\b": "trust the developer on the device: Settings > General > VPN & Device Management",
    "no space": "free some storage on the device",
    "unable to find utility": XCODE,
}
"""By what devicectl says, in lower case: what a person has to do."""
_LOST = ("timed out", "tunnel", "disconnected", "connection")
_LOST_CODES = {
    "com.apple.dt.CoreDeviceError": {4, 1000},
    "com.apple.dt.RemotePairingError": {4},
    # Darwin's EPIPE to EHOSTUNREACH; and EINVAL, which a launch right after an install may be told at first.
    "NSPOSIXErrorDomain": {22, 32, 50, 51, 53, 54, 57, 60, 61, 64, 65},
}
_NO_SPACE = ("NSPOSIXErrorDomain", 28)


def _failure(error: Mapping[str, object], said: str, where: str) -> DeviceError:
    """Of an `error` as devicectl writes it, errors within errors; of what it said where it wrote none."""
    errors = list(_nested(error))
    told = " ".join(dict.fromkeys(text for one in errors for text in _texts(one))) or said
    codes = [(str(one.get("domain")), one.get("code")) for one in errors]
    lost = any(code in _LOST_CODES.get(domain, ()) for domain, code in codes)
    lower = "no space" if _NO_SPACE in codes else told.lower()
    for sign, todo in _PERSON.items():
        if re.search(sign, lower):
            return DeviceError(told, where=where, todo=todo)
    if "file node" in lower and not lost:  # CoreDeviceError 7000, as lost connections are too
        return MissingFile(told, where=where)
    if lost or any(sign in lower for sign in _LOST):
        return LostConnection(told, where=where, todo=_ATTACH)
    return DeviceError(f"devicectl: {told}", where=where)


def _nested(error: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """An error and those that underlie it, outermost first."""
    while error:
        yield error
        error = _map(_map(_map(error.get("userInfo")).get("NSUnderlyingError")).get("error"))


def _texts(error: Mapping[str, object]) -> Iterator[str]:
    information = _map(error.get("userInfo"))
    for key in ("NSLocalizedDescription", "NSLocalizedFailureReason"):
        text = _map(information.get(key)).get("string")
        if isinstance(text, str):
            yield text.strip()


# ---- Devices --------------------------------------------------------------------------------------------------------


def _listed(device: Mapping[str, object]) -> Listed | None:
    properties = _map(device.get("properties"))
    hardware = _map(properties.get("hardware") or device.get("hardwareProperties"))
    connection = _map(properties.get("connection") or device.get("connectionProperties"))
    state = _map(properties.get("state") or device.get("deviceProperties"))
    udid = hardware.get("udid")
    if not isinstance(udid, str) or hardware.get("platform") != "iOS" or hardware.get("reality") == "simulated":
        return None
    if connection.get("pairingState") != "paired":
        return Listed(udid, "not paired with this Mac", _PAIR)
    if "unavailable" in (connection.get("state"), connection.get("tunnelState")):
        return Listed(udid, "paired, and not here", _ATTACH)
    mode = state.get("developerModeStatus")
    if mode == "disabled" or "disabled" in _map(mode):
        return Listed(udid, "Developer Mode is off", _MODE)
    return Listed(udid, "", "")


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> list[Mapping[str, object]]:
    return [_map(one) for one in value] if isinstance(value, list) else []
