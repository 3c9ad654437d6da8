"""A way to a machine with a POSIX shell; `posix` makes a device of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slmc.errors import DeviceError


class LostConnection(DeviceError):
    """The device can't be reached, or was lost in the middle: the same call may do better later."""


@dataclass(frozen=True)
class Output:
    """Of a script that came to its end."""

    code: int
    """128 and the signal's number where a signal ended it."""
    text: str
    """What it wrote to standard output; bytes that are not UTF-8 are U+FFFD."""
    errors: str
    """What it wrote to standard error."""


class Transport(Protocol):
    """Used by one thread at a time. A call after LostConnection connects anew."""

    @property
    def address(self) -> str:
        """What the device is reached by, for people: such as "ssh pi@10.0.0.7" or "adb 39V4C19114019806"."""

    def execute(self, script: str, timeout_s: float = 60) -> Output:
        """Run a script by the device's `sh`, without input. Raises LostConnection, and DeviceError where it does not
        end in time; it may then still run.
        """

    def send(self, content: bytes, path: str) -> None:
        """Write a file, over what was there; its folder exists. Raises LostConnection, and DeviceError where the device
        refuses, as for no space; the file may then be there in part.
        """

    def fetch(self, path: str, to: Path) -> None:
        """Copy a file from the device. Raises LostConnection, DeviceError; nothing is at `to` then."""

    def close(self) -> None:
        """Let go of the connection, if there is one."""
