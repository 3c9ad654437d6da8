"""Climb the ladder: each rung's result is a file, kept in the store like any other stage's.

reference/   workload.jsonl, reference.jsonl, and watched.jsonl: the same workload that also
             asks for the reference's likeliest tokens, for every later rung;
             codec/, the tokenizer and prompt format that the torch rungs read and write text with
quantized/   quantized.jsonl
compiled/    compiled.jsonl
app/         app.jsonl
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from slmc import backends
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.bundle.manifest import Manifest
from slmc.errors import MissingToolError
from slmc.plan import Plan
from slmc.prompt import Codec
from slmc.provenance import TOOLS, data_digests, tool_versions
from slmc.runners.files import read_result, read_workload
from slmc.runners.launch import run
from slmc.store import Entry, Stage, Store
from slmc.validate.workload import make_workload, with_watch

WORKLOAD, WATCHED = "workload.jsonl", "watched.jsonl"
REFERENCE, QUANTIZED, COMPILED, APP = "reference.jsonl", "quantized.jsonl", "compiled.jsonl", "app.jsonl"
CODEC = "codec"
TIMEOUT_S = 6 * 3600.0


def check_reference() -> None:
    """Raises MissingToolError where the reference can't run here."""
    missing = [name for name in TOOLS["reference"] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"the reference needs {' and '.join(missing)}",
            todo="pip install 'slmc[reference]', or build with --no-validate (the bundle then says it was not judged)",
        )


def reference_stage(plan: Plan, limit: int | None) -> Stage:
    inputs = {
        "merge": plan.merge.key,
        "recipe": plan.recipe.digest(),
        "data": data_digests(plan.recipe),
        "context": plan.context.value,
        "limit": limit,
        "tools": tool_versions(TOOLS["reference"]),
    }
    return Stage("reference", inputs)


def run_reference(plan: Plan, store: Store, merged: MergedCheckpoint, codec: Codec, limit: int | None) -> Entry:
    """Ask the merged model; needs torch. Raises RunnerError where it brings no result."""

    def make(folder: Path) -> None:
        workload = make_workload(plan.recipe, codec, folder / WORKLOAD, context=plan.context.value, limit=limit)
        codec.save(folder / CODEC)
        run(
            reference_command(merged.folder, folder / CODEC), folder / WORKLOAD, folder / REFERENCE, timeout_s=TIMEOUT_S
        )
        with_watch(workload, read_result(folder / REFERENCE, workload), folder / WATCHED)

    return store.obtain(reference_stage(plan, limit), make)


def run_quantized(plan: Plan, store: Store, quantized: QuantizedCheckpoint, reference: Entry) -> Entry:
    """Ask the quantized checkpoint, dequantized in torch."""
    stage = Stage("quantized", {"quantize": plan.quantize.key, "reference": reference.key})
    return _answer(
        store,
        stage,
        reference_command(quantized.folder, reference.folder / CODEC),
        reference.folder / WATCHED,
        QUANTIZED,
    )


def run_compiled(store: Store, bundle: Path, manifest: Manifest, reference: Entry) -> Entry | None:
    """Ask the bundle on this machine, with its own library or, where it has none for this machine, with one that is
    built from the same sources; a result of another machine is another result. None where this machine can't run it.
    """
    here = backends.here(store, manifest.backend, bundle / manifest.artifact)
    if here is None:
        return None
    stage = Stage("compiled", {"bundle": manifest.digest, "reference": reference.key, "machine": _machine()})
    command = [*bundle_command(bundle, manifest), *here]
    return _answer(store, stage, command, reference.folder / WATCHED, COMPILED)


def run_app(store: Store, bundle: Path, manifest: Manifest, reference: Entry) -> Entry | None:
    """Ask the bundle as an app does, by its task file. None where it has none, or this machine can't run it."""
    command = app_command(store, bundle, manifest)
    if command is None:
        return None
    stage = Stage("app", {"bundle": manifest.digest, "reference": reference.key, "machine": _machine()})
    return _answer(store, stage, command, reference.folder / WATCHED, APP)


def app_command(store: Store, bundle: Path, manifest: Manifest) -> list[str] | None:
    """The host runner that asks a bundle as an app does; None likewise."""
    here = backends.here(store, manifest.backend, bundle / manifest.artifact)
    if manifest.task is None or here is None:
        return None
    command = [*bundle_command(bundle, manifest), *here, "--task", str(bundle / manifest.task)]
    if manifest.prefix is not None:
        command += ["--prefix", str(bundle / manifest.prefix)]
    if manifest.backend != "tvm":
        command += ["--task-library", str(backends.library_of_this_machine(store))]
    return command


def _machine() -> list[str]:
    return [platform.node(), platform.system(), platform.machine()]


def reference_command(model: Path, codec: Path) -> list[str]:
    return [sys.executable, "-m", "slmc.runners.reference", "--model", str(model), "--codec", str(codec)]


def bundle_command(bundle: Path, manifest: Manifest, threads: int | None = None) -> list[str]:
    """The host runner of the bundle's backend, reading prompts with the bundle's own tokenizer."""
    command = [sys.executable, "-m", f"slmc.runners.{manifest.backend}"]
    command += ["--artifact", str(bundle / manifest.artifact), "--codec", str(bundle / manifest.tokenizer)]
    return command if threads is None else [*command, "--threads", str(threads)]


def _answer(store: Store, stage: Stage, command: Sequence[str], workload: Path, name: str) -> Entry:
    def make(folder: Path) -> None:
        run(command, workload, folder / name, timeout_s=TIMEOUT_S)
        read_result(folder / name, read_workload(workload))  # nonsense is not kept

    return store.obtain(stage, make)
