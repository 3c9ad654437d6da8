"""The control that is asked alone: on this machine, and on phones' CPUs that are emulated, it says the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slmc.backends.tvm.runner import build_runner
from slmc.backends.tvm.stored import stored_runner
from slmc.bundle.golden import GOLDEN_ITEMS
from slmc.devices.local import LocalTransport
from slmc.devices.posix import PosixDevice
from slmc.devices.transport import LostConnection
from slmc.farm.asking import Answered, DeviceAsker, Question
from slmc.farm.controls import check, control_workload
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.record import Control
from slmc.farm.tries import TRIES
from slmc.on_device import Sent
from slmc.runners.contract import ChooseItem, Failure
from slmc.runners.launch import RunnerFailed

from .conftest import Demo

pytestmark = pytest.mark.build

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def control(demo: Demo) -> Sent:
    return Sent(demo.built.bundle, demo.built.manifest)


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that is sent to phones."""
    path = tmp_path_factory.mktemp("arm64") / "arm64"
    build_runner("aarch64-linux-gnu", path)
    return path


def asker(folder: Path, runner: Callable[[str], Path]) -> DeviceAsker:
    return DeviceAsker(PosixDevice("phone", LocalTransport(), str(folder / "device")), runner)


@dataclass
class Otherwise:
    """A device whose answers are edited, or that fails each time in turn."""

    asker: DeviceAsker
    edit: Edit = lambda _: None
    raised: Sequence[Exception] = ()
    asked: list[Question] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.asker.name

    def ask(self, question: Question, folder: Path) -> Answered:
        self.asked.append(question)
        if len(self.asked) <= len(self.raised):
            raise self.raised[len(self.asked) - 1]
        answered = self.asker.ask(question, folder)
        lines = [json.loads(line) for line in answered.result.read_text(encoding="utf-8").splitlines()]
        self.edit(lines[1])
        answered.result.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        return answered

    def close(self) -> None:
        self.asker.close()


def checked(control: Sent, demo: Demo, folder: Path, edit: Edit = lambda _: None, *raised: Exception) -> Control:
    here = Otherwise(asker(folder, partial(stored_runner, demo.store)), edit, raised)
    return check(control, demo.store, here, SpeedPlan(), sleep=lambda _: None)


def test_its_items_are_its_golden_ones(control: Sent) -> None:
    workload = control_workload(control)
    assert workload.digest == control_workload(control).digest
    assert len(workload.items) == GOLDEN_ITEMS
    assert all(isinstance(item, ChooseItem) for item in workload.items)
    assert len(workload.header.choices["labels"]) == len(control.manifest.labels)


def test_a_device_that_is_fit_passes(control: Sent, demo: Demo, tmp_path: Path) -> None:
    found = checked(control, demo, tmp_path)
    assert (found.device, found.outcome, found.reason) == ("phone", "pass", "")
    assert found.decision_ms_p50 is not None


@pytest.mark.parametrize("cpu", ["max", "cortex-a76", "cortex-a53"])
def test_a_phones_cpu_says_the_same(control: Sent, demo: Demo, arm64: Path, tmp_path: Path, cpu: str) -> None:
    """The last has no dot products, and so exact kernels: their numbers are others, as are those to be held against."""
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("not run: needs qemu-aarch64-static")
    script = tmp_path / "slm-run"
    # Not by exec: the device looks for a process of the program's name.
    script.write_text(f'#!/bin/sh\n{emulator} -cpu {cpu} {arm64} "$@"\nexit $?\n')
    phone = asker(tmp_path, lambda _: script)
    assert check(control, demo.store, phone, SpeedPlan(), sleep=lambda _: None).reason == ""


def other_number(answer: dict[str, Any]) -> None:
    answer["choice_logprobs"][0][1] -= 1e-5


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (other_number, f"1 of {GOLDEN_ITEMS} items are answered otherwise than on the farm's machine, the first is "),
        (lambda answer: answer.update(input_ids=[1, 2]), f"1 of {GOLDEN_ITEMS} items are answered otherwise"),
        (lambda answer: answer.update(prefill_ms=-1), "prefill_ms: "),
        (lambda answer: answer.update(id="nonsense"), "no item is called 'nonsense'"),
    ],
)
def test_other_answers_fail_it(control: Sent, demo: Demo, tmp_path: Path, edit: Edit, told: str) -> None:
    found = checked(control, demo, tmp_path, edit)
    assert (found.outcome, found.decision_ms_p50 is None) == ("fail", "otherwise" not in told)
    assert told in found.reason


def test_a_runner_that_dies_fails_it(control: Sent, demo: Demo, tmp_path: Path) -> None:
    crash = RunnerFailed(Failure(cause="signal", what="was killed by SIGSEGV"), ["slm-run"])
    found = checked(control, demo, tmp_path, lambda _: None, crash)
    assert (found.outcome, found.reason) == ("fail", "the runner was killed by SIGSEGV")


def test_a_device_that_is_lost_is_tried_again_and_says_nothing(control: Sent, demo: Demo, tmp_path: Path) -> None:
    lost = LostConnection("the phone was lost", where="adb 1")
    assert checked(control, demo, tmp_path, lambda _: None, *[lost] * (TRIES - 1)).outcome == "pass"
    found = checked(control, demo, tmp_path, lambda _: None, *[lost] * TRIES)
    assert found.outcome == "not run"
    assert "the phone was lost" in found.reason
