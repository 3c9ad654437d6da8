"""What a model library is compiled for: a GPU's language and limits, or a CPU, and the host code's triple.

The GPUs' limits are those of `python/mlc_llm/support/auto_target.py` of mlc-ai/mlc-llm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm

from slmc.names import TargetName
from slmc.target import load_target, native_triples


@dataclass(frozen=True)
class System:
    triple: str
    gpu: Mapping[str, Any] | None
    """None where the library runs on the CPU, to check it."""
    is_static: bool
    """Linked into an app, its functions registered under the library's name; else a file that is loaded."""

    @property
    def target(self) -> tvm.target.Target:
        host = {"kind": "llvm", "mtriple": self.triple}
        if self.gpu is not None:
            return tvm.target.Target(dict(self.gpu), host=host)
        # The oldest with eight floats a vector and conversions of float16.
        cpu = {"mcpu": "x86-64-v3"} if self.triple.startswith("x86_64") else {}
        return tvm.target.Target(host | cpu)


_METAL = {"kind": "metal", "max_shared_memory_per_block": 32768}
_MAC = _METAL | {"max_threads_per_block": 1024, "thread_warp_size": 32}
_PHONE = _METAL | {"max_threads_per_block": 256, "thread_warp_size": 1}


def system_of(name: TargetName) -> System:
    """By the target's name. Raises CompileError where the host is none that is known."""
    if name == "metal":
        return System("arm64-apple-macosx13.0", _MAC, is_static=False)
    if name == "ios":
        return System("arm64-apple-ios18.0", _PHONE, is_static=True)
    if name == "android":
        return System("aarch64-linux-android29", {"kind": "opencl"}, is_static=True)
    return System(native_triples(load_target("host"))[0], None, is_static=False)
