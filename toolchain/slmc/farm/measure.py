"""One bundle on one device in one night: is it as good as the reference, and as fast as it was?"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slmc import __version__
from slmc.bundle.golden import evenly
from slmc.devices.device import Facts
from slmc.evidence import reference_rung
from slmc.farm.asking import Asker, Question
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.ladders import shown
from slmc.farm.record import Accuracy, Circumstances, Outcome, Run, Series
from slmc.farm.tries import Trouble, tried
from slmc.on_device import Sent
from slmc.plan import Plan
from slmc.rungs import WATCHED
from slmc.runners.contract import Environment, Workload
from slmc.runners.files import make, read_result, read_workload, write_workload
from slmc.store import Entry
from slmc.target import MIB
from slmc.validate.answered import asked_examples, read_answers
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Report, RungName
from slmc.validate.workload import TASK

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
    asker: Asker,
    speed: SpeedPlan,
    *,
    device_class: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """What can't be measured is told in the run: no failure of a device or runner ends a night."""
    series = series_of(subject.plan, asker.name)

    def attempt() -> Run:
        with TemporaryDirectory() as folder:
            return _measure(subject, asker, speed, series, device_class, Path(folder))

    found = tried(attempt, sleep)
    return not_run(series, found.reason, found.outcome, device_class) if isinstance(found, Trouble) else found


def series_of(plan: Plan, device: str) -> Series:
    return Series(recipe=plan.recipe.recipe.name, target=plan.target.name, backend=plan.backend.value, device=device)


def not_run(series: Series, reason: str, outcome: Outcome, device_class: str | None) -> Run:
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
        device_class=device_class,
        ladder=None,
    )


def _measure(
    subject: Subject, asker: Asker, plan: SpeedPlan, series: Series, device_class: str | None, folder: Path
) -> Run:
    workload = read_workload(subject.reference.folder / WATCHED)
    question = Question(subject.sent, subject.control, folder / "task.jsonl", folder / "speed.jsonl", plan)
    write_workload(workload, question.task)
    write_workload(speed_workload(workload, plan.items), question.speed)
    answered = asker.ask(question, folder)
    result = read_result(answered.result, workload)
    limit = _limit(subject.plan, device_class)
    report = _judged(subject, workload, answered.result)
    outcome, reason = _outcome(report, result.footer.peak_memory_bytes, limit)
    return Run(
        series=series,
        circumstances=_circumstances(subject, answered.facts, result.environment),
        outcome=outcome,
        reason=reason,
        accuracy=_accuracy(subject.plan, workload, answered.result),
        speed=answered.speed,
        peak_memory_bytes=result.footer.peak_memory_bytes,
        memory_limit_bytes=limit,
        device_class=device_class,
        ladder=shown(report),
    )


def speed_workload(workload: Workload, items: int) -> Workload:
    """Some of the task's items, evenly spread."""
    asked = [item for item in workload.items if item.id.startswith(TASK)]
    return make(workload.header.end_id, workload.header.choices, evenly(asked, items))


# ---- What came of it ------------------------------------------------------------------------------------------------


def _judged(subject: Subject, workload: Workload, path: Path) -> Report:
    """The device above the rungs that this machine climbed."""
    below = [Rung(name, _there(subject.proof / f"{name}.jsonl")) for name in BELOW]
    ladder = [reference_rung(subject.reference), *below, Rung("device", path)]
    return judge(subject.plan.recipe, workload, ladder)


def _outcome(report: Report, peak: int | None, limit: int | None) -> tuple[Outcome, str]:
    """By the device's own gates, and its memory."""
    checks = [check for check in report.checks if check.rung == "device" and check.verdict != "pass"]
    reasons = [f"{check.gate}: {check.evidence}" for check in checks]
    if limit is not None and peak is not None and peak > limit:
        return "fail", "; ".join([f"{peak / MIB:.0f} MiB of memory, of {limit / MIB:.0f} that it may take", *reasons])
    worst: Outcome = "fail" if any(check.verdict == "fail" for check in checks) else "unclear" if checks else "pass"
    return worst, "; ".join(reasons)


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
