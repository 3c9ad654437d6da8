"""One bundle on one device in one night: is it as good as the reference, and as fast as it was?"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slmc import __version__
from slmc.bundle.golden import evenly
from slmc.devices.device import Device, Facts
from slmc.errors import DeviceError, SlmcError
from slmc.evidence import reference_rung
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.interleaved import BUNDLE, CONTROL, run_rounds, summarize
from slmc.farm.record import Accuracy, Circumstances, Outcome, Run, Series, Speed
from slmc.on_device import Sent, Visit
from slmc.plan import Plan
from slmc.rungs import WATCHED
from slmc.runners.contract import Environment, Result, Workload
from slmc.runners.files import make, read_result, read_workload, write_workload
from slmc.runners.launch import RunnerFailed
from slmc.store import Entry, Store
from slmc.target import MIB
from slmc.validate.answered import asked_examples, read_answers
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Report, RungName
from slmc.validate.workload import TASK

TRIES = 3
RETRY_S = 30.0
TASK_FILE, SPEED_FILE = "task.jsonl", "speed.jsonl"
BELOW: tuple[RungName, ...] = ("quantized", "compiled", "app")
"""Rungs between the reference and the device, whose results lie beside the bundle."""


@dataclass(frozen=True)
class Subject:
    """A bundle that was built and judged here, with what it is held against."""

    plan: Plan
    sent: Sent
    proof: Path
    """The folder with the results of the rungs below."""
    reference: Entry
    control: Sent | None
    """Of speed; None where none was asked for."""


def measure(
    subject: Subject,
    device: Device,
    store: Store,
    speed: SpeedPlan,
    *,
    device_class: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """What can't be measured is told in the run: no failure of a device or runner ends a night. A device that was lost,
    was full or restarted is tried TRIES times in all; a runner that failed by itself, once.
    """
    series = series_of(subject.plan, device.name)
    for number in range(1, TRIES + 1):
        with TemporaryDirectory() as folder:
            try:
                return _measure(subject, device, store, speed, series, device_class, Path(folder))
            except RunnerFailed as failed:
                run, again = not_run(series, f"the runner {failed.failure.what}", "fail"), failed.failure.restarted
            except SlmcError as error:
                run, again = not_run(series, str(error), "not run"), isinstance(error, DeviceError)
        if not again or number == TRIES:
            break
        sleep(RETRY_S)
    return run


def series_of(plan: Plan, device: str) -> Series:
    return Series(recipe=plan.recipe.recipe.name, target=plan.target.name, backend=plan.backend.value, device=device)


def not_run(series: Series, reason: str, outcome: Outcome) -> Run:
    """A run without a result."""
    return Run(
        series=series,
        circumstances=None,
        outcome=outcome,
        reason=" ".join(reason.split()),
        accuracy=None,
        speed=None,
        peak_memory_bytes=None,
        memory_limit_bytes=None,
    )


def _measure(
    subject: Subject,
    device: Device,
    store: Store,
    plan: SpeedPlan,
    series: Series,
    device_class: str | None,
    folder: Path,
) -> Run:
    workload = read_workload(subject.reference.folder / WATCHED)
    write_workload(workload, folder / TASK_FILE)
    write_workload(speed_workload(workload, plan.items), folder / SPEED_FILE)
    bundles = {BUNDLE: subject.sent} | ({} if subject.control is None else {CONTROL: subject.control})
    visit = Visit(device, store, bundles, {name: folder / name for name in (TASK_FILE, SPEED_FILE)})
    visit.ask(BUNDLE, TASK_FILE, folder / "result.jsonl")
    result = read_result(folder / "result.jsonl", workload)
    speed = None if subject.control is None else _speed(visit, device, plan, folder)
    limit = _limit(subject.plan, device_class)
    outcome, reason = _judged(subject, workload, folder / "result.jsonl", result, limit)
    return Run(
        series=series,
        circumstances=_circumstances(subject, visit.facts, result.environment),
        outcome=outcome,
        reason=reason,
        accuracy=_accuracy(subject.plan, workload, folder / "result.jsonl"),
        speed=speed,
        peak_memory_bytes=result.footer.peak_memory_bytes,
        memory_limit_bytes=limit,
    )


def speed_workload(workload: Workload, items: int) -> Workload:
    """Some of the task's items, evenly spread."""
    asked = [item for item in workload.items if item.id.startswith(TASK)]
    return make(workload.header.end_id, workload.header.choices, evenly(asked, items))


def _speed(visit: Visit, device: Device, plan: SpeedPlan, folder: Path) -> Speed:
    workload, path = read_workload(folder / SPEED_FILE), folder / "round.jsonl"

    def ask(name: str) -> Result:
        visit.ask(name, SPEED_FILE, path)
        return read_result(path, workload)

    return summarize(run_rounds(ask, device.state, plan), plan)


# ---- What came of it ------------------------------------------------------------------------------------------------


def _judged(subject: Subject, workload: Workload, path: Path, result: Result, limit: int | None) -> tuple[Outcome, str]:
    """By the device's own gates, above the rungs that this machine climbed."""
    below = [Rung(name, _there(subject.proof / f"{name}.jsonl")) for name in BELOW]
    ladder = [reference_rung(subject.reference), *below, Rung("device", path)]
    found, reasons = _of_device(judge(subject.plan.recipe, workload, ladder))
    peak = result.footer.peak_memory_bytes
    if limit is not None and peak is not None and peak > limit:
        return "fail", "; ".join([f"{peak / MIB:.0f} MiB of memory, of {limit / MIB:.0f} that it may take", *reasons])
    return found, "; ".join(reasons)


def _of_device(report: Report) -> tuple[Outcome, Sequence[str]]:
    checks = [check for check in report.checks if check.rung == "device" and check.verdict != "pass"]
    worst: Outcome = "fail" if any(check.verdict == "fail" for check in checks) else "unclear" if checks else "pass"
    return worst, [f"{check.gate}: {check.evidence}" for check in checks]


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _accuracy(plan: Plan, workload: Workload, path: Path) -> Accuracy:
    examples = asked_examples(plan.recipe, workload, plan.recipe.recipe.data.evaluation)
    right = list(read_answers(plan.recipe, workload, examples, path).right.values())
    bits = base64.b64encode(np.packbits(np.array(right, np.bool_)).tobytes()).decode()
    return Accuracy(items=len(right), right=sum(right), asked=workload.digest, answered=bits)


def _circumstances(subject: Subject, facts: Facts, environment: Environment) -> Circumstances:
    manifest = subject.sent.manifest
    return Circumstances(
        recipe=manifest.origins.recipe,
        toolchain=f"{__version__}, {manifest.built_with.code}",
        bundle=manifest.digest,
        control=None if subject.control is None else subject.control.manifest.digest,
        model=facts.model,
        os=facts.os,
        runtime=f"{environment.runtime} {environment.version}",
    )


def _limit(plan: Plan, device_class: str | None) -> int | None:
    """Of a process's memory, in bytes."""
    found = {one.name: one.process_mib * MIB for one in plan.target.memory_classes()}
    return None if device_class is None else found[device_class]
