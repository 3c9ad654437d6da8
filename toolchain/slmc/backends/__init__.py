"""What compiles a quantized checkpoint for a target; one package a backend, listed here."""

from __future__ import annotations

from slmc.errors import CompileError
from slmc.recipe import BackendName, TargetName

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
