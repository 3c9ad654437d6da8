"""When a device is tried again, and when what happened is the night's answer."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from slmc.devices.transport import LostConnection
from slmc.errors import DeviceError, InputError
from slmc.farm import measure as measuring
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.measure import measure
from slmc.farm.record import Run
from slmc.farm.tries import RETRY_S, TRIES
from slmc.runners.contract import Failure
from slmc.runners.launch import RunnerFailed

LOST = LostConnection("the phone was lost", where="adb 1")
FULL = DeviceError("No space left", where="adb 1")
RESTARTED = RunnerFailed(Failure(cause="no result", what="is gone", restarted=True), ["slm-run"])
CRASHED = RunnerFailed(Failure(cause="signal", what="was killed by SIGSEGV"), ["slm-run"])
REFUSED = InputError("the bundle has no task file")


def measured(monkeypatch: pytest.MonkeyPatch, *raised: Exception) -> tuple[Run | str, list[float]]:
    """What comes of tries that end so, each in turn and then well; and how long was waited."""
    left: Iterator[Exception] = iter(raised)

    def attempt(*_: object) -> str:
        for error in left:
            raise error
        return "measured"

    monkeypatch.setattr(measuring, "_measure", attempt)
    recipe = SimpleNamespace(recipe=SimpleNamespace(name="router"))
    plan = SimpleNamespace(recipe=recipe, target=SimpleNamespace(name="android"), backend=SimpleNamespace(value="tvm"))
    waited: list[float] = []
    subject, device = cast(Any, SimpleNamespace(plan=plan)), cast(Any, SimpleNamespace(name="pixel"))
    return measure(subject, device, SpeedPlan(), sleep=waited.append), waited


@pytest.mark.parametrize("error", [LOST, FULL, RESTARTED])
def test_what_the_device_did_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    assert measured(monkeypatch, error, error) == ("measured", [RETRY_S, RETRY_S])


def test_tries_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    run, waited = measured(monkeypatch, *[LOST] * TRIES)
    assert isinstance(run, Run)
    assert (run.outcome, run.accuracy) == ("not run", None)
    assert "the phone was lost" in run.reason
    assert len(waited) == TRIES - 1


@pytest.mark.parametrize(
    ("error", "outcome", "told"), [(CRASHED, "fail", "SIGSEGV"), (REFUSED, "not run", "task file")]
)
def test_what_would_be_the_same_again_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str, told: str
) -> None:
    run, waited = measured(monkeypatch, error)
    assert isinstance(run, Run)
    assert run.outcome == outcome
    assert told in run.reason
    assert waited == []
