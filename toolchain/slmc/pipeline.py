"""The whole story on one page: what `slmc build` does, stage by stage.

Each stage takes what the one before it made and returns its own; the store remembers each
result under the digest of all that went into it, so a second build only checks. An engine
runs the stages, here or on other machines: what they take and return points into the store.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from slmc.engine import LOCAL, Engine
from slmc.errors import SlmcError
from slmc.evidence import app_rung, base_side, compiled_rung, device_rung, quantized_rung, reference_rung
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


def build(plan: Plan, store: Store, out: Path, *, limit: int | None = None, engine: Engine = LOCAL) -> Built:
    """Build the plan's bundle into `out/<name>`; prove it where the plan says so.

    `limit` asks only so many items of the evaluation file. Raises SlmcError; a gate that the ladder breaks is no
    error here, but nothing is delivered where a delegate leaves to the CPU what it should run.
    """
    backends.check_tools(plan.backend.value)
    if plan.task_file and integration(plan.target.name, plan.backend.value):
        backends.check_tools("tvm")  # whose library reads the task file in the app
    if plan.validate or plan.quantization.calibrated:
        rungs.check_reference()
    start = engine.start
    merged, codec = start("merge", merged_with_codec, plan, store).result()
    asked = start("reference", run_reference, plan, store, merged, codec, limit) if plan.validate else None
    judge_by = asked.result() if asked is not None and plan.quantization.method == "auto" else None
    chosen = start("quantize", choose, plan, store, merged, codec, judge_by).result()
    compiled = start("compile", compile_stage, chosen.plan, store, chosen.quantized, codec).result()
    task = start("task", task_stage, chosen.plan, store, compiled, chosen.quantized, codec).result()
    reference = None if asked is None else asked.result()
    parts = (chosen.quantized, compiled, task, codec, reference)
    stored = start("bundle", bundle_stage, chosen.plan, store, *parts).result()
    bundle = out / plan.name
    deliver(store.bring(stored), bundle)
    shutil.rmtree(proof_folder(bundle), ignore_errors=True)  # it was of the bundle that stood here before
    report = None if reference is None else prove(chosen, store, bundle, merged, reference, stored, engine=engine)
    return Built(bundle, read_manifest(bundle), report, reference)


def build_each(
    plans: Sequence[Plan], store: Store, out: Path, *, limit: int | None = None, engine: Engine = LOCAL
) -> Iterator[Built | SlmcError]:
    """What became of each plan, in their order. Plans that begin with the same merge are built one after another, so
    that what they have in common is made once; others side by side, where the engine has room.
    """

    def outcome(plan: Plan) -> Built | SlmcError:
        console.err.print(f"[bold]{plan.name}[/]")
        try:
            return build(plan, store, out, limit=limit, engine=engine)
        except SlmcError as error:
            return error

    if engine.at_once == 1:
        yield from map(outcome, plans)
        return
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.merge.key, []).append(plan)
    pool = ThreadPoolExecutor(engine.at_once)
    try:
        made = {key: pool.submit(lambda group: list(map(outcome, group)), group) for key, group in groups.items()}
        for plan in plans:
            yield made[plan.merge.key].result().pop(0)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def validate(
    plan: Plan, store: Store, bundle: Path, *, limit: int | None = None, device: Device | None = None
) -> Report:
    """Judge a bundle that was built before, on a device too where one is given; what the store has of the ladder is
    used.
    """
    rungs.check_reference()
    if device is not None:
        check_bundle(bundle, read_manifest(bundle))
    merged, codec = merged_with_codec(plan, store)
    reference = run_reference(plan, store, merged, codec, limit)
    chosen = choose(plan, store, merged, codec, reference)
    return prove(chosen, store, bundle, merged, reference, bundle, device=device)


def merged_with_codec(plan: Plan, store: Store) -> tuple[MergedCheckpoint, Codec]:
    """The merged model, and how the recipe's items become its tokens."""
    merged = merge_stage(plan, store)
    return merged, compile_prompt(plan.recipe, merged.folder, plan.recipe.examples(plan.recipe.recipe.data.evaluation))


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
    """Raises GateFailed where a delegate took over less than promised."""
    compile_ = backends.compiler(plan, store, codec)
    entry = _made(plan, store, plan.compile, lambda folder, advance: compile_(quantized, folder, advance))
    backends.check_delegation(plan, entry.folder)
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


def bundle_stage(
    plan: Plan,
    store: Store,
    quantized: QuantizedCheckpoint,
    compiled: CompiledModel,
    task: Path | None,
    codec: Codec,
    reference: Entry | None,
) -> Path:
    """The bundle as the store has it."""
    golden = make_golden(plan, codec, reference)
    manifest = make_manifest(plan, quantized, backends.check_delegation(plan, compiled.folder), task)
    guide = make_guide(manifest, compiled.folder, codec, golden)
    content = Content(compiled, quantized, codec, golden, task, guide)
    return _made(plan, store, plan.bundle, lambda folder, _: pack(content, manifest, folder)).folder


def run_reference(plan: Plan, store: Store, merged: MergedCheckpoint, codec: Codec, limit: int | None) -> Entry:
    with console.step("reference") as told:
        return told(rungs.run_reference(plan, store, merged, codec, limit))


def prove(
    chosen: Chosen,
    store: Store,
    bundle: Path,
    merged: MergedCheckpoint,
    reference: Entry,
    asked: Path,
    *,
    device: Device | None = None,
    engine: Engine = LOCAL,
) -> Report:
    """Climb the rest of the ladder, judge it, and leave results and report beside the bundle.

    `asked` is where the rungs find the bundle: the same, or as the store has it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _prove(chosen, store, bundle, merged, reference, asked, device, engine, Path(folder))


def _prove(
    chosen: Chosen,
    store: Store,
    bundle: Path,
    merged: MergedCheckpoint,
    reference: Entry,
    asked: Path,
    device: Device | None,
    engine: Engine,
    folder: Path,
) -> Report:
    plan, start, manifest = chosen.plan, engine.start, read_manifest(bundle)
    started = [
        start("quantized", quantized_rung, plan, store, merged, chosen.quantized, reference),
        start("compiled", compiled_rung, store, asked, manifest, chosen.quantized, reference),
        start("app", app_rung, store, asked, manifest, reference),
    ]
    on_device = device_rung(store, bundle, manifest, reference, device, folder)
    beside_it = start("base", base_side, plan, store, reference)
    ladder = [reference_rung(reference), *(rung.result() for rung in started), on_device]
    models: dict[RungName, MergedCheckpoint | QuantizedCheckpoint]
    models = {"reference": merged, "quantized": chosen.quantized}
    in_torch = {rung.name: models[rung.name] for rung in ladder[:2] if isinstance(rung.outcome, Path)}
    calibration = start("calibration", beside.run_calibration, plan, store, in_torch, reference).result()
    base = beside_it.result()
    outcomes = [rung.outcome for rung in ladder[:-1] if isinstance(rung.outcome, Path)]
    for path in (*outcomes, *(side.result for side in (base, *calibration.values()) if side is not None)):
        store.bring(path)
    report = judge(
        plan.recipe,
        read_workload(reference.folder / rungs.WATCHED),
        ladder,
        base=base,
        calibration=calibration,
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
