"""What is asked of a device in one night about one bundle: the whole task once, then its speed. Nothing is judged here.

Whatever answers this is an `Asker`: a device that is asked step by step, or a place that is handed all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slmc.devices.device import Device, Facts, State
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.interleaved import BUNDLE, CONTROL, Rounds, run_rounds, summarize
from slmc.farm.record import Speed
from slmc.farm.sustained import Sustained, sustain
from slmc.on_device import Sent, Visit
from slmc.runners.contract import Result
from slmc.runners.files import read_result, read_workload

TASK_FILE, SPEED_FILE = "task.jsonl", "speed.jsonl"


@dataclass(frozen=True)
class Question:
    bundle: Sent
    control: Sent | None
    """What speed is held against; None where it is not asked for."""
    task: Path
    """The whole task's workload."""
    speed: Path
    """Of its items those that a round of speed asks."""
    plan: SpeedPlan


@dataclass(frozen=True)
class Answered:
    facts: Facts
    result: Path
    """Of the task's workload; not read yet."""
    speed: Speed | None


class Asker(Protocol):
    """Used by one thread at a time."""

    @property
    def name(self) -> str: ...

    def ask(self, question: Question, folder: Path) -> Answered:
        """Leaves what it brings in `folder`. Raises RunnerFailed where a runner brings no result, DeviceError where the
        device is lost or refuses, InputError for a bundle that it can't run.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class DeviceAsker:
    """Asks a device step by step, with a runner for its triple from `runner`."""

    device: Device
    runner: Callable[[str], Path]

    @property
    def name(self) -> str:
        return self.device.name

    def ask(self, question: Question, folder: Path) -> Answered:
        bundles = {BUNDLE: question.bundle} | ({} if question.control is None else {CONTROL: question.control})
        visit = Visit(self.device, self.runner, bundles, {TASK_FILE: question.task, SPEED_FILE: question.speed})
        visit.ask(BUNDLE, TASK_FILE, folder / "result.jsonl")
        speed = None if question.control is None else self._speed(visit, question, folder / "round.jsonl")
        return Answered(visit.facts, folder / "result.jsonl", speed)

    def close(self) -> None:
        self.device.close()

    def _speed(self, visit: Visit, question: Question, path: Path) -> Speed:
        def ask(name: str, sustain_s: int = 0) -> None:
            visit.ask(name, SPEED_FILE, path, sustain_s=sustain_s)

        def sustained(rounds: Rounds) -> Sustained:
            def last() -> Result:
                ask(BUNDLE, question.plan.sustained_s)
                return read_result(path, read_workload(question.speed))

            return sustain(last, self.device.state, question.plan, rounds.states)

        return speed_of(question, path, ask, self.device.state, sustained)


def speed_of(
    question: Question,
    path: Path,
    ask: Callable[[str], None],
    state: Callable[[], State],
    sustained: Callable[[Rounds], Sustained],
) -> Speed:
    """Of a bundle and its control in turn: `ask` has one of them leave a result of the speed workload at `path`."""
    workload, plan = read_workload(question.speed), question.plan

    def one(name: str) -> Result:
        ask(name)
        return read_result(path, workload)

    rounds = run_rounds(one, state, plan)
    return summarize(rounds, plan, sustained(rounds) if plan.sustained_s else None)
