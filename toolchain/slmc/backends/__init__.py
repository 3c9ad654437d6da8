"""What compiles a quantized checkpoint for a target; one package a backend, listed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from slmc.artifacts import QuantizedCheckpoint
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.names import BackendName, TargetName
from slmc.plan import Plan

Compiler = Callable[[QuantizedCheckpoint, Path, Advance], None]
"""Writes the artifact into an empty folder; `advance` counts weights."""

READY: dict[TargetName, tuple[BackendName, ...]] = {"host": ("tvm",)}
"""What this version can build. The targets declare more; those come with later versions."""


def check_ready(target: TargetName, backend: BackendName) -> None:
    """Raises CompileError where this version can't build a backend that the target declares."""
    ready = READY.get(target, ())
    if backend not in ready:
        able = ", ".join(f"{name} ({', '.join(backends)})" for name, backends in READY.items())
        raise CompileError(
            f"backend {backend!r} for target {target!r} is declared, but this version of slmc can't build it yet",
            expected=able,
            todo=f"add --backend {ready[0]}" if ready else f"build for one of: {able}; or upgrade slmc",
        )


def read_back(model: QuantizedCheckpoint, backend: BackendName, artifact: Path) -> Iterator[tuple[str, bool]]:
    """Each tensor with whether the artifact holds just what the checkpoint does."""
    from slmc.backends.tvm import readback

    readers = {"tvm": readback.read_back}
    return readers[backend](model, artifact)


def compiler(plan: Plan) -> Compiler:
    """The plan's backend, its tools checked. Raises CompileError or MissingToolError."""
    check_ready(plan.target.name, plan.backend.value)
    makers: dict[BackendName, Callable[[Plan], Compiler]] = {"tvm": _tvm}
    return makers[plan.backend.value](plan)


def _tvm(plan: Plan) -> Compiler:
    from slmc.backends.tvm.compile import check_tools, compile_model

    variant = plan.variant
    if variant is None:
        raise CompileError(f"target {plan.target.name} names no way to compile with TVM")
    check_tools()
    context = plan.context.value
    return lambda model, out, advance: compile_model(model, out, advance, variant=variant, context=context)
