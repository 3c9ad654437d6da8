"""What every device can do, whatever the way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Protocol

from pydantic import Field

from slmc.errors import InputError
from slmc.runners.contract import Failure
from slmc.strict import Strict

System = Literal["linux", "android", "macos", "ios"]
"""iOS is iPadOS too."""
Thermal = Literal["none", "light", "moderate", "severe", "critical", "emergency", "shutdown"]
"""How far a system slows itself down, in Android's words."""
THERMAL: tuple[Thermal, ...] = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
Share = Annotated[float, Field(ge=0, le=1)]
Bytes = Annotated[int, Field(ge=0)]


class Facts(Strict):
    """What stays the same from run to run, but for updates."""

    model: str
    system: System
    os: str
    """With its version."""
    machine: str
    """Whose programs run, as a triple names it: aarch64 or x86_64."""
    cores: Annotated[int, Field(gt=0)]
    memory_bytes: Bytes


class Charge(Strict):
    """What is left in a battery, as its own counter has it: only differences mean something."""

    count: Annotated[int, Field(gt=0)]
    """In the counter's unit, and in its steps, which may be many units."""
    unit_j: Annotated[float, Field(gt=0)]
    """Joules of one, at the battery's voltage of now."""


class State(Strict):
    """What differs from minute to minute; None where the device doesn't tell."""

    free_bytes: Bytes
    """Where files are put."""
    load: Annotated[float, Field(ge=0)] | None
    """Of the last minute: how many processes ran or waited to run, a core."""
    clock: Share | None
    """The highest clock that the slowest-set core may have now, of the highest that it can have."""
    thermal: Thermal | None
    temperature: float | None
    """Degrees Celsius: of the skin where told, else of the battery or the hottest part."""
    battery: Share | None
    charging: bool | None
    charge: Charge | None = None


@dataclass(frozen=True)
class File:
    """To be brought to a device, which is asked for its digest before it is used."""

    path: Path
    sha256: str


def check_name(name: str) -> None:
    """Raises InputError for a name that leaves the device's folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise InputError(f"the name {name!r} of a file for a device", expected="a path that stays in its folder")


class Device(Protocol):
    """Used by one thread at a time. A lost connection is taken up again for a while; then LostConnection is raised, and
    DeviceError where the device refuses.
    """

    @property
    def name(self) -> str: ...

    def probe(self) -> Facts: ...

    def state(self) -> State: ...

    def push(self, files: Mapping[str, File]) -> None:
        """Lay files out under their names, paths with `/`, in the device's folder: these and no others. What is there
        already, or in part, is not sent again. Each is compared with its digest on the device.
        """

    def run(self, command: Sequence[str], result: str, timeout_s: float) -> Failure | None:
        """Run a program that was pushed, the command's first word, in that folder, to its end; a failure where it
        leaves no file `result`, or died, was killed, or took longer. It goes on while the connection is lost.

        A device whose programs are parts of apps has one of its own, which it holds against the one that was pushed.
        """

    def pull(self, name: str, to: Path) -> None:
        """Fetch a file that the program wrote into the folder."""

    def clear(self) -> None:
        """End what was started and remove all that was brought."""

    def close(self) -> None:
        """Let go of the connection."""
