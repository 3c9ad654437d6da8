"""Ask what stands beside the ladder: the base without its adapter, and the calibration items of a classify task.

base/, calibration-reference/, calibration-quantized/   workload.jsonl and answers.jsonl
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slmc import console
from slmc.artifacts import Checkpoint, MergedCheckpoint, QuantizedCheckpoint
from slmc.plan import Plan
from slmc.prompt import Codec
from slmc.provenance import TOOLS, code_digest, tool_versions
from slmc.recipe import Classify
from slmc.rungs import CODEC, TIMEOUT_S, WATCHED, WORKLOAD, reference_command
from slmc.runners.contract import Workload
from slmc.runners.files import read_result, read_workload, write_workload
from slmc.runners.launch import run
from slmc.store import Entry, Stage, Store
from slmc.validate.report import RungName
from slmc.validate.sides import Side
from slmc.validate.workload import base_workload, calibration_workload

ANSWERS = "answers.jsonl"


def run_base(store: Store, base: Checkpoint, reference: Entry) -> Side:
    """Ask the base the reference's items, or some of them."""
    return _run(store, "base", base, base_workload(read_workload(reference.folder / WATCHED)), reference)


def run_calibration(
    plan: Plan, store: Store, models: Mapping[RungName, MergedCheckpoint | QuantizedCheckpoint], reference: Entry
) -> dict[RungName, Side]:
    """Ask each model the calibration items; none of them where the recipe has no threshold fitted."""
    task = plan.recipe.recipe.task
    if not isinstance(task, Classify) or task.abstain is None:
        return {}
    codec = Codec.open(reference.folder / CODEC)
    workload = calibration_workload(plan.recipe, codec, context=plan.context.value)
    return {name: _run(store, f"calibration-{name}", model, workload, reference) for name, model in models.items()}


def _run(
    store: Store,
    name: str,
    model: Checkpoint | MergedCheckpoint | QuantizedCheckpoint,
    workload: Workload,
    reference: Entry,
) -> Side:
    """Ask a checkpoint in torch, with the reference's codec. Raises RunnerError where it brings no result."""

    def make(folder: Path) -> None:
        write_workload(workload, folder / WORKLOAD)
        command = reference_command(model.folder, reference.folder / CODEC)
        run(command, folder / WORKLOAD, folder / ANSWERS, timeout_s=TIMEOUT_S)
        read_result(folder / ANSWERS, workload)  # nonsense is not kept

    inputs = {
        "code": code_digest(),
        "model": model.digest,
        "workload": workload.digest,
        "tools": tool_versions(TOOLS["reference"]),
    }
    with console.step(name) as told:
        return Side(workload, told(store.obtain(Stage(name, inputs), make)).folder / ANSWERS)
