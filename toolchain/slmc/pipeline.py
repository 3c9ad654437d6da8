"""The whole story on one page: what `slmc build` does, stage by stage.

Each stage takes what the one before it made and returns its own; the store remembers each
result under the digest of all that went into it, so a second build only checks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc import backends, beside, console, rungs
from slmc.artifacts import Checkpoint, CompiledModel, MergedCheckpoint, QuantizedCheckpoint
from slmc.bundle.manifest import Manifest, read_manifest, write_manifest
from slmc.bundle.pack import Content, deliver, pack
from slmc.checkpoint.lora import merge
from slmc.checkpoint.reader import open_checkpoint
from slmc.describe import confidence, make_golden, make_manifest, validation
from slmc.plan import Plan, code_digest
from slmc.prompt import Codec, compile_prompt
from slmc.quant import readback
from slmc.quant.quantizer import quantize
from slmc.quant.reader import open_quantized
from slmc.quant.schemes import SCHEMES
from slmc.quant.survival import AdapterSurvival, measure, read_survival, write_survival
from slmc.runners.files import read_workload
from slmc.runners.launch import RunnerFailed
from slmc.sources import locate
from slmc.store import Entry, Stage, Store
from slmc.validate.html import write_page
from slmc.validate.ladder import Rung, judge
from slmc.validate.report import ReadBack, Report, RungName, write_report


@dataclass(frozen=True)
class Built:
    """A delivered bundle, and how it was judged; None where it was not."""

    bundle: Path
    manifest: Manifest
    report: Report | None


def build(plan: Plan, store: Store, out: Path, *, limit: int | None = None) -> Built:
    """Build the plan's bundle into `out/<name>`; prove it where the plan says so.

    `limit` asks only so many items of the evaluation file. Raises SlmcError; a broken gate is no error here.
    """
    backends.check_ready(plan.target.name, plan.backend.value)
    if plan.validate:
        rungs.check_reference()
    merged = merge_stage(plan, store)
    codec = compile_prompt(plan.recipe, merged.folder, plan.recipe.examples(plan.recipe.recipe.data.evaluation))
    reference = run_reference(plan, store, merged, codec, limit) if plan.validate else None
    quantized = quantize_stage(plan, store, merged)
    compiled = compile_stage(plan, store, quantized)
    golden = make_golden(plan, codec, reference)
    manifest = make_manifest(plan, quantized)
    content = Content(compiled, quantized, codec, golden)
    stored = _made(plan, store, plan.bundle, lambda folder, _: pack(content, manifest, folder))
    bundle = out / plan.name
    deliver(stored.folder, bundle)
    shutil.rmtree(proof_folder(bundle), ignore_errors=True)  # it was of the bundle that stood here before
    if reference is None:
        return Built(bundle, read_manifest(bundle), None)
    report = prove(plan, store, bundle, merged, quantized, reference)
    return Built(bundle, read_manifest(bundle), report)


def validate(plan: Plan, store: Store, bundle: Path, *, limit: int | None = None) -> Report:
    """Judge a bundle that was built before; what the store has of the ladder is used."""
    rungs.check_reference()
    merged = merge_stage(plan, store)
    codec = compile_prompt(plan.recipe, merged.folder, plan.recipe.examples(plan.recipe.recipe.data.evaluation))
    reference = run_reference(plan, store, merged, codec, limit)
    return prove(plan, store, bundle, merged, quantize_stage(plan, store, merged), reference)


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


def quantize_stage(plan: Plan, store: Store, merged: MergedCheckpoint) -> QuantizedCheckpoint:
    scheme, quantization = SCHEMES[plan.scheme.value], plan.recipe.recipe.quantization
    bits = quantization.bits(merged.architecture)

    def make(folder: Path, advance: console.Advance) -> None:
        quantize(merged, scheme, quantization.keep, folder, advance, bits)

    entry = _made(plan, store, plan.quantize, make)
    return open_quantized(entry.folder)


def compile_stage(plan: Plan, store: Store, quantized: QuantizedCheckpoint) -> CompiledModel:
    compile_ = backends.compiler(plan)
    entry = _made(plan, store, plan.compile, lambda folder, advance: compile_(quantized, folder, advance))
    return CompiledModel(entry.folder, plan.backend.value, plan.target.name, entry.key)


def survival_stage(
    plan: Plan, store: Store, base: Checkpoint, merged: MergedCheckpoint, quantized: QuantizedCheckpoint
) -> AdapterSurvival:
    """What the quantized weights hold of the adapter's change."""
    digests = {"base": base.digest, "merged": merged.digest, "quantized": quantized.digest}
    stage = Stage("survival", {"code": code_digest(), **digests})

    def make(folder: Path, advance: console.Advance) -> None:
        write_survival(measure(base, merged, quantized, advance), folder)

    return read_survival(_made(plan, store, stage, make).folder)


def run_reference(plan: Plan, store: Store, merged: MergedCheckpoint, codec: Codec, limit: int | None) -> Entry:
    with console.step("reference") as told:
        return told(rungs.run_reference(plan, store, merged, codec, limit))


def prove(
    plan: Plan,
    store: Store,
    bundle: Path,
    merged: MergedCheckpoint,
    quantized: QuantizedCheckpoint,
    reference: Entry,
) -> Report:
    """Climb the rest of the ladder, judge it, and leave results and report beside the bundle."""
    manifest = read_manifest(bundle)
    base = open_base(plan)
    ladder = [
        Rung("reference", reference.folder / rungs.REFERENCE),
        _rung(
            "quantized",
            rungs.QUANTIZED,
            lambda: rungs.run_quantized(plan, store, quantized, reference),
            readback.read_back(merged, quantized),
            None if base is None else survival_stage(plan, store, base, merged, quantized),
        ),
        _rung(
            "compiled",
            rungs.COMPILED,
            lambda: rungs.run_compiled(store, bundle, manifest, reference),
            backends.read_back(quantized, manifest.backend, bundle / manifest.artifact),
        ),
        Rung("device", None),
    ]
    models: dict[RungName, MergedCheckpoint | QuantizedCheckpoint] = {"reference": merged, "quantized": quantized}
    in_torch = {rung.name: models[rung.name] for rung in ladder[:2] if isinstance(rung.outcome, Path)}
    report = judge(
        plan.recipe,
        read_workload(reference.folder / rungs.WATCHED),
        ladder,
        base=None if base is None else beside.run_base(store, base, reference),
        calibration=beside.run_calibration(plan, store, in_torch, reference),
    )
    judged = {"validation": validation(report), "confidence": confidence(report)}
    write_manifest(manifest.model_copy(update=judged), bundle)
    write_proof(proof_folder(bundle), reference, ladder, report)
    return report


def open_base(plan: Plan) -> Checkpoint | None:
    """The base on its own, to hold against; None where the recipe has no adapter."""
    recipe = plan.recipe.recipe
    return None if recipe.adapter is None else open_checkpoint(locate(plan.recipe, recipe.base, weights=True))


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


def compared(tensors: Iterable[tuple[str, bool]]) -> ReadBack:
    """Of tensors read back, each with whether it is what it should be."""
    found = list(tensors)
    return ReadBack(tensors=len(found), wrong=tuple(name for name, same in found if not same))


def _rung(
    name: RungName,
    file: str,
    climb: Callable[[], Entry],
    tensors: Iterable[tuple[str, bool]],
    adapter: AdapterSurvival | None = None,
) -> Rung:
    """A runner that dies is a result too: the report names its cause."""
    found = compared(tensors)
    try:
        with console.step(name) as told:
            return Rung(name, told(climb()).folder / file, found, adapter)
    except RunnerFailed as failed:
        return Rung(name, failed.failure, found, adapter)


def _made(plan: Plan, store: Store, stage: Stage, make: Callable[[Path, console.Advance], None]) -> Entry:
    """The stage's result, its making shown by weights done."""
    total = sum(tensor.size for tensor in plan.architecture.tensors())

    def shown(folder: Path) -> None:
        with console.progress(stage.name, total) as advance:
            make(folder, advance)

    with console.step(stage.name) as told:
        return told(store.obtain(stage, shown))
