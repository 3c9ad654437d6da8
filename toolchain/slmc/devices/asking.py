"""How a system is asked of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from slmc.devices.device import Facts, State

Ask = Callable[[str], str]
"""Runs a script on the device: what it wrote. Raises DeviceError where it fails."""


class Platform(Protocol):
    def facts(self, ask: Ask) -> Facts: ...

    def state(self, ask: Ask, folder: str) -> State:
        """With the free storage where a folder lies."""
