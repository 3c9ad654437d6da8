"""What a model library is compiled for: a GPU's language, its limits, and the host code's triple.

The GPUs' limits are those of `python/mlc_llm/support/auto_target.py` of mlc-ai/mlc-llm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm

from slmc.errors import CompileError


@dataclass(frozen=True)
class System:
    gpu: dict[str, Any]
    triple: str
    is_static: bool
    """Linked into an app, its functions registered under the library's name; else a file that is loaded."""

    @property
    def target(self) -> tvm.target.Target:
        return tvm.target.Target(self.gpu, host={"kind": "llvm", "mtriple": self.triple})


_METAL = {"kind": "metal", "max_shared_memory_per_block": 32768}
_SYSTEMS = {
    "metal": System(
        {**_METAL, "max_threads_per_block": 1024, "thread_warp_size": 32}, "arm64-apple-macosx13.0", is_static=False
    ),
    "ios": System({**_METAL, "max_threads_per_block": 256, "thread_warp_size": 1}, "arm64-apple-ios18.0", is_static=True),
    "android": System({"kind": "opencl"}, "aarch64-linux-android29", is_static=True),
}


def system_of(name: str) -> System:
    """By the target's name. Raises CompileError for one without a GPU that is known."""
    if name not in _SYSTEMS:
        raise CompileError(f"no model library for target {name!r}", expected=f"one of {', '.join(_SYSTEMS)}")
    return _SYSTEMS[name]
