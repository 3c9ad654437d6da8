"""Waiting for a device that was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from slmc.devices.transport import LostConnection

PATIENCE_S = 120.0
"""How long a lost device is waited for."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Patience:
    seconds: float
    clock: Clock

    def __call__(self, call: Callable[[], Found]) -> Found:
        """Again while the connection is lost, in growing steps, for as long as there is patience."""
        start, delay = self.clock.now(), 0.5
        while True:
            try:
                return call()
            except LostConnection:
                if self.clock.now() + delay - start > self.seconds:
                    raise
                self.clock.sleep(delay)
                delay = min(2 * delay, 15.0)
