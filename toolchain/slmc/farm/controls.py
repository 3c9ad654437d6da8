"""A frozen control asked alone, before any bundle is: whether the device is fit to say something of them.

It is asked the golden items that it was built with, the same every night, and must answer as this machine does by the
same kernels, which give the same bits on every CPU. What differs is the device's fault, whatever slmc's code became.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc import backends
from slmc.bundle.golden import GoldenItem, read_golden
from slmc.errors import InputError, RunnerError
from slmc.farm.asking import Asker, Question
from slmc.farm.farm_file import SpeedPlan
from slmc.farm.record import Control
from slmc.farm.tries import tried
from slmc.on_device import Sent
from slmc.prompt import Codec
from slmc.provenance import code_digest
from slmc.recipe import Classify, Recipe
from slmc.rungs import bundle_command
from slmc.runners.contract import Answer, ChooseItem, Chosen, Generated, GenerateItem, Item, Result, Workload
from slmc.runners.files import make, read_result, write_workload
from slmc.runners.launch import run
from slmc.runners.native_engine import load_library, runnable_kernels
from slmc.store import Stage, Store
from slmc.validate.speed import task_speed
from slmc.validate.workload import LABELS, TASK

ANSWERS, WORKLOAD = "answers.jsonl", "workload.jsonl"
TIMEOUT_S = 3600.0
ROUNDING = 2e-6
"""Of log-probabilities: the last digit that a result tells may be rounded otherwise."""


def check(
    control: Sent, store: Store, asker: Asker, plan: SpeedPlan, *, sleep: Callable[[float], None] = time.sleep
) -> Control:
    """What it says of a device; no failure of a device or runner is an error."""

    def attempt() -> Control:
        with TemporaryDirectory() as folder:
            return _check(control, store, asker, plan, Path(folder))

    found = tried(attempt, sleep)
    if isinstance(found, Control):
        return found
    return Control(device=asker.name, outcome=found.outcome, reason=found.reason, decision_ms_p50=None)


def not_asked(device: str, reason: str) -> Control:
    return Control(device=device, outcome="not run", reason=" ".join(reason.split()), decision_ms_p50=None)


def _check(control: Sent, store: Store, asker: Asker, plan: SpeedPlan, folder: Path) -> Control:
    workload = control_workload(control)
    write_workload(workload, folder / WORKLOAD)
    answered = asker.ask(Question(control, None, folder / WORKLOAD, folder / WORKLOAD, plan), folder)
    try:
        result = read_result(answered.result, workload)
    except RunnerError as nonsense:
        return Control(device=asker.name, outcome="fail", reason=nonsense.what, decision_ms_p50=None)
    reason = difference(result, _expected(control, store, workload, kernels_of(result)))
    return Control(
        device=asker.name,
        outcome="fail" if reason else "pass",
        reason=reason,
        decision_ms_p50=task_speed(result).decision_ms_p50 or None,
    )


def control_workload(control: Sent) -> Workload:
    """Of its golden items. Raises InputError where there are none."""
    manifest, codec = control.manifest, Codec.open(control.bundle / control.manifest.tokenizer)
    items = [_item(manifest.recipe, one) for one in read_golden(control.bundle)]
    labels = tuple(tuple(codec.answer(label)) for label in manifest.labels)
    return make(codec.end_id, {LABELS: labels} if labels else {}, items)


def _item(recipe: Recipe, one: GoldenItem) -> Item:
    name, prompt, fields, ids = TASK + one.id, one.prompt, one.fields, one.input_ids
    if isinstance(recipe.task, Classify):
        return ChooseItem(id=name, prompt=prompt, fields=fields, input_ids=ids, choices=LABELS)
    return GenerateItem(id=name, prompt=prompt, fields=fields, input_ids=ids, max_tokens=recipe.task.max_tokens)


# ---- What it always says --------------------------------------------------------------------------------------------


def kernels_of(result: Result) -> str:
    """Of slm-run, whose version ends with their name."""
    return result.environment.version.rpartition(", ")[2]


def kernels_like(kernels: str, here: Sequence[str]) -> str:
    """Of this machine's, those that give the same bits: themselves, or the first that are as exact.

    Raises InputError where it has none.
    """
    alike = [name for name in here if name.endswith("_exact") == kernels.endswith("_exact")]
    if not alike:
        raise InputError(f"no kernels here give the same bits as {kernels}", expected="a farm's machine with AVX2")
    return kernels if kernels in alike else alike[0]


def _expected(control: Sent, store: Store, workload: Workload, kernels: str) -> Result:
    """By this machine's library of today's code: one that the control brings may be older than the runner."""
    bundle, manifest = control.bundle, control.manifest
    assert manifest.task is not None, "a device was asked by it"
    library = backends.library_of_this_machine(store)
    mine = kernels_like(kernels, runnable_kernels(load_library(library)))
    command = [*bundle_command(bundle, manifest), "--library", str(library), "--kernels", mine]
    command += ["--task", str(bundle / manifest.task)]

    def answer(folder: Path) -> None:
        write_workload(workload, folder / WORKLOAD)
        run(command, folder / WORKLOAD, folder / ANSWERS, timeout_s=TIMEOUT_S)
        read_result(folder / ANSWERS, workload)  # nonsense is not kept

    stage = Stage("control", {"bundle": manifest.digest, "kernels": mine, "code": code_digest()})
    try:
        return read_result(store.obtain(stage, answer).folder / ANSWERS, workload)
    except RunnerError as error:  # it says nothing of the device
        raise InputError(f"the control can't be asked on this machine: {error.what}", where=bundle) from None


def difference(found: Result, expected: Result) -> str:
    """What is not as it should be, in words; empty where all is."""
    other = [name for name, answer in expected.answers.items() if not _same(found.answers[name], answer)]
    if not other:
        return ""
    count = f"{len(other)} of {len(expected.answers)} items are"
    return f"{count} answered otherwise than on the farm's machine, the first is {other[0]!r}"


def _same(found: Answer, expected: Answer) -> bool:
    if found.input_ids != expected.input_ids:
        return False
    if isinstance(found, Chosen) and isinstance(expected, Chosen):
        return found.choice == expected.choice and _near(dict(found.choice_logprobs), dict(expected.choice_logprobs))
    if isinstance(found, Generated) and isinstance(expected, Generated):
        told = (dict(enumerate(one.logprobs)) for one in (found, expected))
        return (found.output_ids, found.ended) == (expected.output_ids, expected.ended) and _near(*told)
    return False


def _near(found: Mapping[int, float], expected: Mapping[int, float]) -> bool:
    return found.keys() == expected.keys() and all(abs(found[key] - expected[key]) <= ROUNDING for key in found)
