"""What each rung has to show: its answers, its weights read back, and what they hold of the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from slmc import backends, beside, console, on_device, rungs
from slmc.artifacts import Checkpoint, MergedCheckpoint, QuantizedCheckpoint
from slmc.bundle.manifest import Manifest
from slmc.checkpoint.reader import open_checkpoint
from slmc.devices.device import Device
from slmc.plan import Plan
from slmc.provenance import code_digest
from slmc.quant import readback
from slmc.quant.survival import AdapterSurvival, measure, read_survival, write_survival
from slmc.runners.launch import RunnerFailed
from slmc.sources import locate
from slmc.store import Entry, Stage, Store
from slmc.validate.ladder import Rung
from slmc.validate.report import ReadBack, RungName
from slmc.validate.sides import Side


def reference_rung(reference: Entry) -> Rung:
    return Rung("reference", reference.folder / rungs.REFERENCE)


def quantized_rung(
    plan: Plan, store: Store, merged: MergedCheckpoint, quantized: QuantizedCheckpoint, reference: Entry
) -> Rung:
    """An adapter that stays unmerged is there in full: nothing of it is measured, and the weights are the base's."""
    base = open_base(plan)
    if base is not None and plan.unmerged:
        source, adapter = MergedCheckpoint(base.folder, base.architecture, base.digest), None
    else:
        source, adapter = merged, None if base is None else _survival(store, base, merged, quantized)
    return _rung(
        "quantized",
        rungs.QUANTIZED,
        lambda: rungs.run_quantized(plan, store, quantized, reference),
        readback.read_back(source, quantized),
        adapter,
    )


def compiled_rung(
    store: Store, bundle: Path, manifest: Manifest, quantized: QuantizedCheckpoint, reference: Entry
) -> Rung:
    return _rung(
        "compiled",
        rungs.COMPILED,
        lambda: rungs.run_compiled(store, bundle, manifest, reference),
        backends.read_back(quantized, manifest.backend, bundle / manifest.artifact),
    )


def app_rung(store: Store, bundle: Path, manifest: Manifest, reference: Entry) -> Rung:
    """The weights are those of the compiled rung: nothing is read back."""
    return _rung("app", rungs.APP, lambda: rungs.run_app(store, bundle, manifest, reference))


def device_rung(
    store: Store, bundle: Path, manifest: Manifest, reference: Entry, device: Device | None, folder: Path
) -> Rung:
    """The result goes into `folder`: a device is asked anew each time, unlike a rung of the store. None was run without
    a device.
    """
    if device is None:
        return Rung("device", None)
    result = folder / "device.jsonl"
    try:
        on_device.answer(device, store, bundle, manifest, reference.folder / rungs.WATCHED, result)
    except RunnerFailed as failed:
        return Rung("device", failed.failure)
    return Rung("device", result)


def open_base(plan: Plan) -> Checkpoint | None:
    """The base on its own, to hold against; None where the recipe has no adapter."""
    recipe = plan.recipe.recipe
    return None if recipe.adapter is None else open_checkpoint(locate(plan.recipe, recipe.base, weights=True))


def base_side(plan: Plan, store: Store, reference: Entry) -> Side | None:
    """What the base answers without its adapter; None where the recipe has none."""
    base = open_base(plan)
    return None if base is None else beside.run_base(store, base, reference)


def _survival(
    store: Store, base: Checkpoint, merged: MergedCheckpoint, quantized: QuantizedCheckpoint
) -> AdapterSurvival:
    """What the quantized weights hold of the adapter's change."""
    digests = {"base": base.digest, "merged": merged.digest, "quantized": quantized.digest}
    stage = Stage("survival", {"code": code_digest(), **digests})

    def make(folder: Path) -> None:
        with console.progress("survival", merged.architecture.weights) as advance:
            write_survival(measure(base, merged, quantized, advance), folder)

    with console.step("survival") as told:
        return read_survival(told(store.obtain(stage, make)).folder)


def compared(tensors: Iterable[tuple[str, bool]]) -> ReadBack:
    """Of tensors read back, each with whether it is what it should be."""
    found = list(tensors)
    return ReadBack(tensors=len(found), wrong=tuple(name for name, same in found if not same))


def _rung(
    name: RungName,
    file: str,
    climb: Callable[[], Entry | None],
    tensors: Iterable[tuple[str, bool]] | None = None,
    adapter: AdapterSurvival | None = None,
) -> Rung:
    """A runner that dies is a result too: the report names its cause."""
    found = None if tensors is None else compared(tensors)
    try:
        with console.step(name) as told:
            entry = climb()
            return Rung(name, None if entry is None else told(entry).folder / file, found, adapter)
    except RunnerFailed as failed:
        return Rung(name, failed.failure, found, adapter)
