"""The whole story on one page: what `slmc build` does, stage by stage.

Each stage takes what the one before it made and returns its own; the store remembers each
result under the digest of all that went into it, so a second build only checks.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc import backends, beside, console, rungs
from slmc.artifacts import CompiledModel, MergedCheckpoint, QuantizedCheckpoint
from slmc.bundle.manifest import Manifest, read_manifest, write_manifest
from slmc.bundle.pack import Content, deliver, pack
from slmc.checkpoint.lora import merge
from slmc.checkpoint.reader import open_checkpoint
from slmc.decisions import make_task
from slmc.describe import confidence, make_golden, make_manifest, validation, where_run
from slmc.devices.device import Device
from slmc.evidence import app_rung, compiled_rung, device_rung, open_base, quantized_rung, reference_rung
from slmc.guide import make_guide
from slmc.integration import integration
from slmc.on_device import check_bundle
from slmc.plan import Plan
from slmc.prompt import TOKENIZER_FILE, Codec, compile_prompt
from slmc.quantization import Chosen, choose
from slmc.runners.files import read_workload
from slmc.sources import locate
from slmc.store import Entry, Stage, Store
from slmc.validate.html import write_page
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import Report, RungName, write_report


@dataclass(frozen=True)
class Built:
    """A delivered bundle, and how it was judged by what; None where it was not."""

    bundle: Path
    manifest: Manifest
    report: Report | None
    reference: Entry | None


def build(plan: Plan, store: Store, out: Path, *, limit: int | None = None) -> Built:
    """Build the plan's bundle into `out/<name>`; prove it where the plan says so.

    `limit` asks only so many items of the evaluation file. Raises SlmcError; a gate that the ladder breaks is no
    error here, but nothing is delivered where a delegate leaves to the CPU what it should run.
    """
    backends.check_tools(plan.backend.value)
    if plan.task_file and integration(plan.target.name, plan.backend.value):
        backends.check_tools("tvm")  # whose library reads the task file in the app
    if plan.validate or plan.quantization.calibrated:
        rungs.check_reference()
    merged = merge_stage(plan, store)
    codec = compile_prompt(plan.recipe, merged.folder, plan.recipe.examples(plan.recipe.recipe.data.evaluation))
    reference = run_reference(plan, store, merged, codec, limit) if plan.validate else None
    chosen = choose(plan, store, merged, codec, reference)
    compiled = compile_stage(chosen.plan, store, chosen.quantized, codec)
    delegation = backends.check_delegation(chosen.plan, compiled.folder)
    golden = make_golden(chosen.plan, codec, reference)
    task = task_stage(chosen.plan, store, compiled, chosen.quantized, codec)
    manifest = make_manifest(chosen.plan, chosen.quantized, delegation, task)
    guide = make_guide(manifest, compiled.folder, codec, golden)
    content = Content(compiled, chosen.quantized, codec, golden, task, guide)
    stored = _made(chosen.plan, store, chosen.plan.bundle, lambda folder, _: pack(content, manifest, folder))
    bundle = out / plan.name
    deliver(stored.folder, bundle)
    shutil.rmtree(proof_folder(bundle), ignore_errors=True)  # it was of the bundle that stood here before
    report = None if reference is None else prove(chosen, store, bundle, merged, reference)
    return Built(bundle, read_manifest(bundle), report, reference)


def validate(
    plan: Plan, store: Store, bundle: Path, *, limit: int | None = None, device: Device | None = None
) -> Report:
    """Judge a bundle that was built before, on a device too where one is given; what the store has of the ladder is
    used.
    """
    rungs.check_reference()
    if device is not None:
        check_bundle(bundle, read_manifest(bundle))
    merged = merge_stage(plan, store)
    codec = compile_prompt(plan.recipe, merged.folder, plan.recipe.examples(plan.recipe.recipe.data.evaluation))
    reference = run_reference(plan, store, merged, codec, limit)
    return prove(choose(plan, store, merged, codec, reference), store, bundle, merged, reference, device)


def merge_stage(plan: Plan, store: Store) -> MergedCheckpoint:
    """The adapter in the base's weights; the base itself where the recipe has no adapter."""
    recipe = plan.recipe.recipe
    base = open_checkpoint(locate(plan.recipe, recipe.base, weights=True))
    if recipe.adapter is None:
        return MergedCheckpoint(base.folder, base.architecture, base.digest)
    adapter = locate(plan.recipe, recipe.adapter, weights=True)
    entry = _made(plan, store, plan.merge, lambda folder, advance: merge(base, adapter, folder, advance))
    merged = open_checkpoint(entry.folder)
    return MergedCheckpoint(merged.folder, merged.architecture, merged.digest)


def compile_stage(plan: Plan, store: Store, quantized: QuantizedCheckpoint, codec: Codec) -> CompiledModel:
    compile_ = backends.compiler(plan, store, codec)
    entry = _made(plan, store, plan.compile, lambda folder, advance: compile_(quantized, folder, advance))
    return CompiledModel(entry.folder, plan.backend.value, plan.target.name, entry.key)


def task_stage(
    plan: Plan, store: Store, compiled: CompiledModel, quantized: QuantizedCheckpoint, codec: Codec
) -> Path | None:
    """A folder with what an app asks by; None where the recipe wants none."""
    if plan.task is None:
        return None
    tokenizer = quantized.folder / TOKENIZER_FILE

    def make(folder: Path, _: console.Advance) -> None:
        make_task(plan, store, compiled.folder, tokenizer, codec, folder)

    return _made(plan, store, plan.task, make).folder


def run_reference(plan: Plan, store: Store, merged: MergedCheckpoint, codec: Codec, limit: int | None) -> Entry:
    with console.step("reference") as told:
        return told(rungs.run_reference(plan, store, merged, codec, limit))


def prove(
    chosen: Chosen,
    store: Store,
    bundle: Path,
    merged: MergedCheckpoint,
    reference: Entry,
    device: Device | None = None,
) -> Report:
    """Climb the rest of the ladder, judge it, and leave results and report beside the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        return _prove(chosen, store, bundle, merged, reference, device, Path(folder))


def _prove(
    chosen: Chosen,
    store: Store,
    bundle: Path,
    merged: MergedCheckpoint,
    reference: Entry,
    device: Device | None,
    folder: Path,
) -> Report:
    plan, quantized, manifest = chosen.plan, chosen.quantized, read_manifest(bundle)
    base = open_base(plan)
    ladder = [
        reference_rung(reference),
        quantized_rung(plan, store, merged, quantized, reference),
        compiled_rung(store, bundle, manifest, quantized, reference),
        app_rung(store, bundle, manifest, reference),
        device_rung(store, bundle, manifest, reference, device, folder),
    ]
    models: dict[RungName, MergedCheckpoint | QuantizedCheckpoint] = {"reference": merged, "quantized": quantized}
    in_torch = {rung.name: models[rung.name] for rung in ladder[:2] if isinstance(rung.outcome, Path)}
    report = judge(
        plan.recipe,
        read_workload(reference.folder / rungs.WATCHED),
        ladder,
        base=None if base is None else beside.run_base(store, base, reference),
        calibration=beside.run_calibration(plan, store, in_torch, reference),
        steps=chosen.steps,
    )
    judged = {"validation": validation(report), "confidence": confidence(report), "device": where_run(report)}
    write_manifest(manifest.model_copy(update=judged), bundle)
    write_proof(proof_folder(bundle), reference, ladder, report)
    return report


def proof_folder(bundle: Path) -> Path:
    """Beside the bundle, so that what a phone gets holds no test data."""
    return bundle.with_name(bundle.name + ".proof")


def write_proof(folder: Path, reference: Entry, ladder: Sequence[Rung], report: Report) -> None:
    """Workload, every rung's result, `report.json` and `report.html`."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(reference.folder / rungs.WATCHED, folder / rungs.WORKLOAD)
    for rung in ladder:
        result = folder / f"{rung.name}.jsonl"
        result.unlink(missing_ok=True)
        if isinstance(rung.outcome, Path):
            shutil.copyfile(rung.outcome, result)
    write_report(report, folder / "report.json")
    write_page(report, folder / "report.html")


def _made(plan: Plan, store: Store, stage: Stage, make: Callable[[Path, console.Advance], None]) -> Entry:
    """The stage's result, its making shown by weights done."""

    def shown(folder: Path) -> None:
        with console.progress(stage.name, plan.architecture.weights) as advance:
            make(folder, advance)

    with console.step(stage.name) as told:
        return told(store.obtain(stage, shown))
