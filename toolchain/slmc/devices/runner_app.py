"""The app that runs slm-run on an iPhone, and what is said between it and this machine: two JSON files.

Its Swift is targets/ios/runner, with the files in its folder of documents told in Container.swift.
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.parsers.expat import ExpatError

from pydantic import ConfigDict

from slmc.devices.device import Facts, State, Thermal
from slmc.errors import InputError
from slmc.strict import Strict

VARIABLE = "SLMC_IOS_RUNNER"
"""Of the environment: where the built app lies."""
ORDER, TOLD, OUTPUT, SIGNAL = (f"Documents/{name}" for name in ("order.json", "told.json", "output", "signal"))
FILES, JOB = "Documents/files", "Documents/job"
BUILD = (
    "build it as targets/ios/runner/README.md says: `slmc devices --runner-app FOLDER`, then xcodegen and xcodebuild"
)
_THERMAL: Mapping[str, Thermal] = {"nominal": "none", "fair": "light", "serious": "severe", "critical": "critical"}
"""ProcessInfo.ThermalState's words, by what Apple says that a system does in each."""


@dataclass(frozen=True)
class App:
    """As Xcode built it."""

    path: Path
    identifier: str
    executable: str


def read_app(path: Path | None) -> App:
    """Raises InputError for what is no app, or none at all."""
    if path is None:
        raise InputError("an iPhone needs the runner app", expected=f"{VARIABLE}=.../SlmcRunner.app", todo=BUILD)
    try:
        told = plistlib.loads((path / "Info.plist").read_bytes())
        return App(path, str(told["CFBundleIdentifier"]), str(told["CFBundleExecutable"]))
    except (OSError, ValueError, KeyError, TypeError, ExpatError):
        raise InputError(f"{VARIABLE} names no app", where=path, expected="SlmcRunner.app", todo=BUILD) from None


class Order(Strict):
    slmc_order: Literal[1] = 1
    token: str
    files: dict[str, str] | None
    """Digests by names: these and no others are to lie in the job's folder. None leaves files as they are."""
    command: tuple[str, ...] | None
    """Of slm-run; it is run where all files are there."""


class _Told(Strict):
    model_config = ConfigDict(allow_inf_nan=False)


class Phone(_Told):
    model: str
    system: str
    cores: int
    memory_bytes: int
    booted: int
    """Seconds since 1970."""

    def facts(self) -> Facts:
        return Facts(
            model=self.model,
            system="ios",
            os=self.system,
            machine="aarch64",
            cores=self.cores,
            memory_bytes=self.memory_bytes,
        )


class Moment(_Told):
    free_bytes: int
    thermal: str
    low_power: bool
    battery: float | None = None
    charging: bool | None = None

    def state(self) -> State:
        """Low power mode slows the phone itself down, whatever its heat."""
        thermal = _THERMAL.get(self.thermal)
        battery = None if self.battery is None else min(max(self.battery, 0.0), 1.0)
        return State(
            free_bytes=max(self.free_bytes, 0),
            load=None,
            clock=None,
            thermal="light" if self.low_power and thermal in (None, "none") else thermal,
            temperature=None,
            battery=battery,
            charging=self.charging,
        )


class Told(_Told):
    slmc_told: Literal[1]
    token: str
    runner: str
    """The digest of the library that the app is made of."""
    phone: Phone
    moment: Moment
    """Before the command."""
    missing: tuple[str, ...]
    """Digests of files that are to be sent: not there, or damaged."""
    code: int | None = None
    """Of the command that was run."""
    made: dict[str, str]
    """Digests of what the command wrote, by name."""
    left: bool
    """A person or a lock took the app off the screen, and it ended."""
    problem: str | None = None
