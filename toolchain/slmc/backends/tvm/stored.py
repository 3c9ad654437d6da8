"""Native libraries and runners by way of the store: one a triple, whatever the models."""

from __future__ import annotations

from pathlib import Path

from slmc import console
from slmc.backends.tvm.library import build_library
from slmc.backends.tvm.link import library_name
from slmc.backends.tvm.runner import RUNNER, build_runner
from slmc.backends.tvm.tools import versions
from slmc.provenance import code_digest
from slmc.store import Stage, Store


def stored_library(store: Store, triple: str) -> Path:
    """The library for a triple, built where the store does not have it. Raises CompileError or MissingToolError."""
    stage = Stage("library", {"triple": triple, "code": code_digest(), "tools": versions()})
    with console.step(f"library for {triple}") as told:
        entry = told(store.obtain(stage, lambda folder: build_library(triple, folder / library_name(triple))))
    return entry.folder / library_name(triple)


def stored_runner(store: Store, triple: str) -> Path:
    """The program `slm-run` for a triple, likewise."""
    stage = Stage("runner", {"triple": triple, "code": code_digest(), "tools": versions()})
    with console.step(f"runner for {triple}") as told:
        entry = told(store.obtain(stage, lambda folder: build_runner(triple, folder / RUNNER)))
    return entry.folder / RUNNER
