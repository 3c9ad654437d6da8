"""Asking a device that may be lost: again where it may do better, and then in words why it did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from slmc.errors import DeviceError, SlmcError
from slmc.runners.launch import RunnerFailed

TRIES = 3
RETRY_S = 30.0
Made = TypeVar("Made")


@dataclass(frozen=True)
class Trouble:
    """Why there is no result."""

    outcome: Literal["fail", "not run"]
    """Fail: the runner did, by itself."""
    reason: str


def tried(attempt: Callable[[], Made], sleep: Callable[[float], None]) -> Made | Trouble:
    """TRIES times in all where the device was lost, was full or restarted; once where the runner failed by itself."""
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except RunnerFailed as failed:
            trouble, again = _trouble("fail", f"the runner {failed.failure.what}"), failed.failure.restarted
        except SlmcError as error:
            trouble, again = _trouble("not run", str(error)), isinstance(error, DeviceError)
        if not again or number == TRIES:
            break
        sleep(RETRY_S)
    return trouble


def _trouble(outcome: Literal["fail", "not run"], reason: str) -> Trouble:
    return Trouble(outcome, " ".join(reason.split()))
