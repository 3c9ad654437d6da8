"""An iPhone behind `xcrun devicectl`: the commands that are asked, a container, and an app that does its orders.

The app here is Python's: the same as targets/ios/runner/Sources, which nothing here compiles. Its slm_run is a program
of this machine, run in the job's folder; what ends that program ends the app.
"""

from __future__ import annotations

import hashlib
import json
import plistlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmc.devices.devicectl import Ended
from slmc.devices.runner_app import App, read_app

UDID = "00008130-000A1B2C3D4E5F60"
BUNDLE = "org.slmc.SlmcRunner"
SYSTEM = "iOS 18.7.1 (Build 22H31)"
DOMAIN = "com.apple.dt.CoreDeviceError"
LOCKED = (
    'The request was denied by service delegate (SBMainWorkspace) for reason: Locked ("Unable to launch org.slmc '
    'because the device was not, or could not be, unlocked").'
)


def app_folder(folder: Path) -> App:
    """As Xcode would have built it."""
    path = folder / "SlmcRunner.app"
    path.mkdir(parents=True)
    told = {"CFBundleIdentifier": BUNDLE, "CFBundleExecutable": "SlmcRunner"}
    (path / "Info.plist").write_bytes(plistlib.dumps(told, fmt=plistlib.FMT_BINARY))
    return read_app(path)


class Refused(Exception):
    """devicectl ends with an `error`."""

    def __init__(self, code: int, text: str, domain: str = DOMAIN, under: Mapping[str, Any] | None = None) -> None:
        information: dict[str, Any] = {"NSLocalizedDescription": {"string": text}}
        if under is not None:
            information["NSUnderlyingError"] = {"error": under}
        self.error = {"code": code, "domain": domain, "userInfo": information}


def lost() -> Refused:
    """As a cable that was pulled looks (github.com/flutter/flutter and others: CoreDeviceError 7000 over ETIMEDOUT)."""
    return Refused(7000, "The operation couldn’t be completed.", under={"code": 60, "domain": "NSPOSIXErrorDomain"})


@dataclass
class Phone:
    """`run` takes what `run_command` takes."""

    folder: Path
    program: Path
    """What slm_run is here."""
    runner: str = "0" * 64
    """The digest that the app tells of its library."""
    fault: Callable[[int, Sequence[str]], str | None] = lambda call, words: None
    """Of each call, by its number: "before" and "after" lose the connection, "silent" says nothing."""
    locked: bool = False
    room: int = 1 << 40
    """Bytes that still fit."""
    booted: int = 1_790_000_000
    thermal: str = "nominal"
    low_power: bool = False
    damage: Callable[[str, bytes], bytes] = lambda name, content: content
    """What arrives of a file that is sent."""
    on_launch: Callable[[Phone], None] = lambda phone: None
    calls: list[list[str]] = field(default_factory=list)
    sent: int = 0
    _app: _App | None = None
    _pid: int = 700
    _is_installed: bool = False

    @property
    def documents(self) -> Path:
        return self.folder / "Documents"

    def lives(self) -> bool:
        """The app."""
        return self._app is not None and self._app.lives()

    def leave(self) -> None:
        """As where a person looks at something else: the app tells it, and ends."""
        assert self._app is not None
        self._app.leave()

    def run(self, words: Sequence[str], timeout_s: float) -> Ended | None:
        assert words[:2] == ["xcrun", "devicectl"]
        assert 5 <= int(self._option(words, "--timeout")) < timeout_s
        self.calls.append(list(words))
        fault = self.fault(len(self.calls), words)
        told = Path(self._option(words, "--json-output"))
        if fault == "silent":
            return None
        try:
            if fault == "before":
                raise lost()
            result = self._done(words, half=fault == "after")
            if fault == "after":
                raise lost()
        except Refused as refused:
            self._write(told, words, "failed", error=refused.error)
            return Ended(1, "ERROR: for people")
        self._write(told, words, "success", result=result)
        return Ended(0, "")

    def _write(self, told: Path, words: Sequence[str], outcome: str, **more: object) -> None:
        kind = ".".join(["devicectl", *[word for word in words[2:5] if not word.startswith("-")]])
        info = {"arguments": list(words[1:]), "commandType": kind, "jsonVersion": 2, "outcome": outcome}
        told.write_text(json.dumps({"info": info, **more}))

    @staticmethod
    def _option(words: Sequence[str], name: str) -> str:
        assert words.count(name) == 1, words
        return words[list(words).index(name) + 1]

    def _done(self, words: Sequence[str], half: bool) -> dict[str, Any]:
        if self._option(words, "--device") != UDID:
            raise Refused(1000, f"The specified device was not found. (Name: {self._option(words, '--device')})")
        kind = " ".join(words[3:5])
        commands = {
            "install app": self._install,
            "uninstall app": self._uninstall,
            "info apps": self._apps,
            "info processes": self._processes,
            "process launch": self._launch,
            "process terminate": self._terminate,
        }
        if kind in ("copy to", "copy from"):
            assert self._option(words, "--domain-type") == "appDataContainer"
            assert self._option(words, "--domain-identifier") == BUNDLE
            assert self._option(words, "--user") == "mobile"
            return self._copy(kind, self._option(words, "--source"), self._option(words, "--destination"), half)
        return commands[kind](words)

    def _install(self, words: Sequence[str]) -> dict[str, Any]:
        assert Path(words[-1], "Info.plist").is_file()
        self.documents.mkdir(parents=True, exist_ok=True)
        self._is_installed = True
        return {"installedApplications": [{"bundleID": BUNDLE}]}

    def _uninstall(self, words: Sequence[str]) -> dict[str, Any]:
        assert words[-1] == BUNDLE
        if not self._is_installed:
            raise Refused(3002, "The application is not installed.")
        shutil.rmtree(self.folder)
        self._is_installed = False
        return {}

    def _apps(self, words: Sequence[str]) -> dict[str, Any]:
        assert self._option(words, "--bundle-id") == BUNDLE
        return {"apps": [{"bundleIdentifier": BUNDLE}] if self._is_installed else []}

    def _processes(self, words: Sequence[str]) -> dict[str, Any]:
        place = "file:///private/var/containers/Bundle/Application/4903FA4B"
        running = [{"executable": "file:///sbin/launchd", "processIdentifier": 1}]
        running += [{"executable": f"{place}/OtherSlmcRunner.app/SlmcRunner", "processIdentifier": 3}]
        if self.lives():
            running.append({"executable": f"{place}/SlmcRunner.app/SlmcRunner", "processIdentifier": self._pid})
        return {"runningProcesses": running}

    def _launch(self, words: Sequence[str]) -> dict[str, Any]:
        assert words[-1] == BUNDLE
        if not self._is_installed:
            raise Refused(10002, "The application failed to launch.")
        if self.locked:
            raise Refused(
                10002,
                "The application failed to launch.",
                under={
                    "code": 1,
                    "domain": "FBSOpenApplicationServiceErrorDomain",
                    "userInfo": {"NSLocalizedFailureReason": {"string": LOCKED}},
                },
            )
        if not self.lives():
            self._pid += 1
            self._app = _App(self)
            self._app.start()
            self.on_launch(self)
        return {"process": {"processIdentifier": self._pid}}

    def _terminate(self, words: Sequence[str]) -> dict[str, Any]:
        assert "--kill" in words
        if int(self._option(words, "--pid")) != self._pid or self._app is None or not self._app.lives():
            raise Refused(3, "No such process", "NSPOSIXErrorDomain")
        self._app.kill()
        return {"signal": {"name": "SIGKILL", "value": 9}}

    def _copy(self, kind: str, source: str, to: str, half: bool) -> dict[str, Any]:
        if kind == "copy from":
            if not (self.folder / source).is_file():
                raise Refused(7000, f"Failed to retrieve the file node for {source}")
            content = (self.folder / source).read_bytes()
            Path(to).write_bytes(content[: len(content) // 2] if half else content)
            return {}
        content = Path(source).read_bytes()
        if len(content) > self.room:
            raise Refused(7000, "The file could not be saved.", under={"code": 28, "domain": "NSPOSIXErrorDomain"})
        content = self.damage(to, content)
        place = self.folder / to
        assert place.parent.is_dir(), "a folder that the Mac makes is root's"
        place.write_bytes(content[: len(content) // 2] if half else content)
        self.sent += len(content) if "/files/" in to else 0
        return {}


class _App:
    """One process of it."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._root = phone.documents
        self._child: subprocess.Popen[bytes] | None = None
        self._told: dict[str, Any] | None = None
        self._alive = True

    def lives(self) -> bool:
        if self._alive and self._child is not None and self._child.poll() is not None:
            self._finish(self._child.returncode)
        return self._alive

    def start(self) -> None:
        try:
            order = json.loads((self._root / "order.json").read_bytes())
        except (OSError, ValueError):
            self._alive = False
            return
        begun = self._root / "begun"
        if order["slmc_order"] != 1 or (begun.exists() and begun.read_text() == order["token"]):
            self._alive = False
            return
        for old in ("told.json", "output", "signal"):
            (self._root / old).unlink(missing_ok=True)
        begun.write_text(order["token"])
        self._told = self._telling(order["token"])
        if order.get("files") is not None:
            self._told["missing"] = self._stock(order["files"])
        if order.get("command") is None or self._told["missing"]:
            self.tell()
            return
        with (self._root / "output").open("wb") as output:
            (self._root / "signal").touch()
            command = [str(self._phone.program), *order["command"][1:]]
            self._child = subprocess.Popen(command, cwd=self._root / "job", stdout=output, stderr=output)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._alive = False

    def leave(self) -> None:
        assert self._told is not None
        told = self._told
        self.kill()
        self._told = told | {"left": True}
        self.tell()

    def tell(self) -> None:
        (self._root / "told.json").write_text(json.dumps(self._told))
        self._alive = False

    def _finish(self, code: int) -> None:
        self._alive = False
        assert self._told is not None
        if code < 0:
            if -code != signal.SIGKILL:  # which no program sees
                (self._root / "signal").write_bytes(bytes([-code]))
            return
        job = self._root / "job"
        made = [path for path in job.rglob("*") if path.is_file() and not path.is_symlink()]
        self._told["code"] = code
        self._told["made"] = {path.relative_to(job).as_posix(): _digest(path) for path in made}
        self.tell()

    def _stock(self, wanted: Mapping[str, str]) -> list[str]:
        job, files = self._root / "job", self._root / "files"
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir()
        files.mkdir(exist_ok=True)
        for path in files.iterdir():
            if path.name not in wanted.values() or _digest(path) != path.name:
                path.unlink()
        left = set(wanted.values()) - {path.name for path in files.iterdir()}
        if not left:
            for name, sha256 in wanted.items():
                (job / name).parent.mkdir(parents=True, exist_ok=True)
                (job / name).symlink_to(files / sha256)
        return sorted(left)

    def _telling(self, token: str) -> dict[str, Any]:
        """Without what is nil, as Swift writes it."""
        phone = self._phone
        return {
            "slmc_told": 1,
            "token": token,
            "runner": phone.runner,
            "phone": {
                "model": "iPhone16,1",
                "system": SYSTEM,
                "cores": 6,
                "memory_bytes": 8 << 30,
                "booted": phone.booted,
            },
            "moment": {
                "free_bytes": 10**10,
                "thermal": phone.thermal,
                "low_power": phone.low_power,
                "battery": 0.85,
                "charging": True,
            },
            "missing": [],
            "made": {},
            "left": False,
        }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
