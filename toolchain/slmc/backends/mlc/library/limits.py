"""What a phone's GPU refuses when a kernel starts, found when it is compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tvm import relax

from slmc.errors import CompileError

MOST_SHARED = 32768
"""Bytes of a group's own memory: Apple's GPUs and Adreno have no more."""
_BYTES = {"float": 4, "half": 2, "int": 4, "uint": 4}
_KERNEL = re.compile(r"(?:__kernel|kernel) void (\w+)\([^;{]*\{\n(.*?)^\}\n", re.DOTALL | re.MULTILINE)
_SHARED = re.compile(rf"(?:__local|threadgroup) ({'|'.join(_BYTES)})(\d*) \w+\[(\d+)\];")


def check_limits(executable: relax.VMExecutable) -> None:
    """Raises CompileError for a kernel that takes more memory for a group than phones have."""
    for module in _modules(executable.mod):
        if module.kind in ("opencl", "metal"):
            for name, taken in shared_memory(module.inspect_source()).items():
                if taken > MOST_SHARED:
                    raise CompileError(
                        f"kernel {name} takes {taken} bytes of memory for a group of threads",
                        expected=f"at most {MOST_SHARED}, which phones have",
                        todo="leave activations at float16, or take another backend",
                    )


def shared_memory(source: str) -> dict[str, int]:
    """Bytes of each kernel, as OpenCL's or Metal's source declares them."""
    return {name: sum(map(_size, _SHARED.findall(body))) for name, body in _KERNEL.findall(source)}


def _size(declared: tuple[str, str, str]) -> int:
    kind, lanes, count = declared
    return _BYTES[kind] * int(lanes or 1) * int(count)


def _modules(module: Any) -> Iterator[Any]:
    yield module
    for imported in module.imports:
        yield from _modules(imported)
