"""What compiles a quantized checkpoint for a target; one package a backend, listed here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.coreml import tools as coreml_tools
from slmc.backends.executorch import tools as executorch_tools
from slmc.backends.tvm import tools as tvm_tools
from slmc.console import Advance
from slmc.errors import GateFailed
from slmc.models.compiled import library_here, read_compiled
from slmc.models.exported import Delegation, read_exported
from slmc.names import BackendName
from slmc.plan import Plan
from slmc.prompt import Codec
from slmc.store import Store
from slmc.target import load_target, native_triples

Compiler = Callable[[QuantizedCheckpoint, Path, Advance], None]
"""Writes the artifact into an empty folder; `advance` counts weights."""


def check_tools(backend: BackendName) -> None:
    """Raises MissingToolError where a package is missing or of a version that was not tested."""
    {"tvm": tvm_tools, "mlc": tvm_tools, "executorch": executorch_tools, "coreml": coreml_tools}[backend].check_tools()


def read_back(model: QuantizedCheckpoint, backend: BackendName, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each tensor with whether the artifact holds just what the checkpoint does."""
    from slmc.backends.coreml import readback as coreml
    from slmc.backends.executorch import readback as executorch
    from slmc.backends.mlc import readback as mlc
    from slmc.backends.tvm import readback as tvm

    readers = {
        "tvm": tvm.read_back,
        "executorch": executorch.read_back,
        "coreml": coreml.read_back,
        "mlc": mlc.read_back,
    }
    return readers[backend](model, artifact)


def compiler(plan: Plan, store: Store, codec: Codec) -> Compiler:
    """The plan's backend."""
    makers: dict[BackendName, Callable[[Plan, Store, Codec], Compiler]] = {
        "tvm": _tvm,
        "executorch": _executorch,
        "coreml": _coreml,
        "mlc": _mlc,
    }
    return makers[plan.backend.value](plan, store, codec)


def _executorch(plan: Plan, store: Store, codec: Codec) -> Compiler:
    from slmc.backends.executorch.compile import compile_model

    assert plan.delegate is not None
    context, delegate = plan.context.value, plan.delegate.value
    return lambda model, out, advance: compile_model(
        model, out, advance, context=context, end_id=codec.end_id, delegate=delegate
    )


def _coreml(plan: Plan, store: Store, codec: Codec) -> Compiler:
    from slmc.backends.coreml.compile import compile_model

    assert plan.delegate is not None
    recipe, chunk, delegate = plan.recipe.recipe, plan.target.prefill_chunk, plan.delegate.value
    described = {"slmc.recipe": f"{recipe.name} {recipe.version}", "slmc.prompt": codec.format.model_dump_json()}
    return lambda model, out, advance: compile_model(
        model,
        out,
        advance,
        context=plan.context.value,
        chunk=chunk,
        delegate=delegate,
        metadata_=described | {"slmc.checkpoint": model.digest},
    )


def _mlc(plan: Plan, store: Store, codec: Codec) -> Compiler:
    from slmc.backends.mlc.compile import Order, compile_model

    recipe = plan.recipe.recipe
    order = Order(
        target=plan.target.name,
        name=f"{recipe.name}-{recipe.version}",
        context=plan.context.value,
        chunk=plan.target.prefill_chunk,
        activations=plan.activations.value,
        memory=plan.forecast.memory,
        codec=codec,
        examples=plan.recipe.examples(recipe.data.evaluation),
        mlc_llm=plan.mlc_llm.value,
    )
    return lambda model, out, advance: compile_model(model, out, advance, order)


def check_delegation(plan: Plan, artifact: Path) -> Delegation | None:
    """What the delegate took over; None for a backend without. Raises GateFailed where it is less than promised."""
    if plan.delegate is None or plan.backend.value != "executorch":
        return None
    found, limit = read_exported(artifact).delegation, plan.recipe.recipe.gates.max_outside_delegate
    count = sum(found.unexpected.values())
    if count > limit:
        named = ", ".join(f"{name} ({times})" for name, times in found.unexpected.items())
        raise GateFailed(
            f"delegate {found.delegate} leaves {count} operators to the CPU that it should run: {named}",
            expected=f"at most {limit}, as max_outside_delegate says",
            todo="take another delegate with --delegate, or allow them in the recipe's gates",
        )
    return found


def _tvm(plan: Plan, store: Store, codec: Codec) -> Compiler:
    from slmc.backends.tvm.compile import compile_model
    from slmc.backends.tvm.stored import stored_library

    def build(triple: str, path: Path) -> None:
        shutil.copyfile(stored_library(store, triple), path)

    return lambda model, out, advance: compile_model(
        model,
        out,
        advance,
        triples=plan.triples,
        context=plan.context.value,
        activations=plan.activations.value,
        build=build,
    )


def here(store: Store, backend: BackendName, artifact: Path) -> list[str] | None:
    """What a runner's command line needs beside the artifact to run it on this machine: a library of this machine's
    over the same weights, where the artifact was built for others alone. None where this machine can't run it.
    """
    from slmc.backends.executorch.profiles import PROFILES
    from slmc.backends.mlc.stored import stored_library as stored_mlc_library

    if backend == "executorch":
        return [] if PROFILES[read_exported(artifact).delegation.delegate].runs_here else None
    if backend == "mlc":
        return ["--library", str(stored_mlc_library(store, artifact))]
    if backend != "tvm" or library_here(read_compiled(artifact)) is not None:
        return []
    return ["--library", str(library_of_this_machine(store))]


def library_of_this_machine(store: Store) -> Path:
    """The native library, built once."""
    from slmc.backends.tvm.stored import stored_library

    triple, *_ = native_triples(load_target("host"))
    return stored_library(store, triple)
