"""Runs a model library's own OpenCL source on this machine, by whatever OpenCL implementation there is (PoCL, on PyPI).

The wheel of TVM has no OpenCL runtime: its place is taken by the CPU's memory, and by kernels that are looked up by
name. Host code, cache and kernels are those of the library.
"""

from __future__ import annotations

import ctypes
import re
import struct
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

tvm = pytest.importorskip("tvm")
opencl = pytest.importorskip("pyopencl", reason="pyopencl and PoCL are there for Linux on x86-64 alone")

_POINTER = 3
_TYPES = {(0, 32): np.int32, (0, 64): np.int64, (1, 32): np.uint32, (2, 16): np.float16, (2, 32): np.float32}
"""Of a scalar, by DLPack's code and bits."""


class Kernel(NamedTuple):
    arguments: list[tuple[int, int]]
    """Code and bits of each."""
    launch: list[str]
    """What the numbers after the arguments are, such as "threadIdx.x"."""


def platform(half: bool = False) -> Any:
    """One that can run what is asked. Skips the test where there is none."""
    for found in opencl.get_platforms():
        if not half or any("cl_khr_fp16" in device.extensions for device in found.get_devices()):
            return found
    pytest.skip("no OpenCL implementation here computes with half precision")


def kernels(library: Path) -> dict[str, Kernel]:
    """What a library in a .tar says of its kernels, as TVM's OpenCL runtime reads it."""
    blob = BytesIO(_blob(library))
    assert _text(blob) == "cl"
    found = {}
    for _ in range(_number(blob)):
        name = _text(blob)
        assert _text(blob) == name
        types = [struct.unpack("<BBH", blob.read(4))[:2] for _ in range(_number(blob))]
        launch = [_text(blob) for _ in range(_number(blob))]
        blob.read(4 * _number(blob))
        found[name] = Kernel(types, launch)
    return found


def source(library: Path) -> str:
    """Of all its kernels."""
    blob = _blob(library)
    start = blob.index(b"// Function: ")
    return blob[start : start + struct.unpack("<Q", blob[start - 8 : start])[0]].decode()


def definitions(library: Path, prefix: str = "") -> list[str]:
    """Of each kernel, in order of name, without a prefix."""
    text = source(library).replace(prefix, "")
    return sorted(re.findall(r"^__kernel void \w+\([^;{]*\) \{\n.*?^\}\n", text, re.DOTALL | re.MULTILINE))


def _blob(library: Path) -> bytes:
    with tarfile.open(library) as archive:
        found = archive.extractfile(next(name for name in archive.getnames() if name.endswith("devc.o")))
        assert found is not None
        octets = found.read()
    start = octets.index(struct.pack("<Q", 6) + b"opencl") + 14
    return octets[start + 8 : start + 8 + struct.unpack("<Q", octets[start : start + 8])[0]]


def _number(blob: BytesIO) -> int:
    return int(struct.unpack("<Q", blob.read(8))[0])


def _text(blob: BytesIO) -> str:
    return blob.read(_number(blob)).decode()


class Machine:
    """Stands in for TVM's OpenCL runtime with one library's kernels."""

    def __init__(self, executable: Any, library: Path, platform: Any) -> None:
        self._context = opencl.Context(platform.get_devices())
        self._queue = opencl.CommandQueue(self._context)
        self._by_pointer = _set_pointer()
        self._sources = dict(_functions(source(library)))
        self._built: dict[str, Any] = {}
        cpu = tvm.get_global_func("device_api.cpu")
        tvm.register_global_func("device_api.opencl", lambda: cpu(), override=True)
        for module in _modules(executable.mod):
            if module.kind == "llvm":
                module.clear_imports()  # what can't be found there is looked up by name
        for name, kernel in kernels(library).items():
            tvm.register_global_func(name, self._launcher(name, kernel), override=True)

    def _launcher(self, name: str, kernel: Kernel) -> Callable[..., None]:
        def launch(*values: Any) -> None:
            program = self._program(name)
            for place, (value, (code, bits)) in enumerate(zip(values, kernel.arguments, strict=False)):
                if code == _POINTER:
                    self._by_pointer(program.int_ptr, place, getattr(value, "value", value))
                else:
                    program.set_arg(place, _TYPES[code, bits](value))
            sizes = dict(zip(kernel.launch, values[len(kernel.arguments) :], strict=True))
            local = [sizes.get(f"threadIdx.{axis}", 1) for axis in "xyz"]
            groups = [sizes.get(f"blockIdx.{axis}", 1) for axis in "xyz"]
            whole = [one * many for one, many in zip(local, groups, strict=True)]
            opencl.enqueue_nd_range_kernel(self._queue, program, whole, local)
            self._queue.finish()

        return launch

    def _program(self, name: str) -> Any:
        if name not in self._built:
            # PoCL 3.0 loses barriers in loops where it optimizes: its attention was wrong from the second tile on.
            program = opencl.Program(self._context, self._sources[name]).build(options=["-cl-opt-disable"])
            self._built[name] = getattr(program, name)
        return self._built[name]


def _functions(text: str) -> Iterator[tuple[str, str]]:
    common, *parts = re.split(r"(?=// Function: )", text)
    for part in parts:
        yield part.split("\n", 1)[0].removeprefix("// Function: "), common + part


def _modules(module: Any) -> Iterator[Any]:
    yield module
    for imported in module.imports:
        yield from _modules(imported)


def _set_pointer() -> Callable[[int, int, int], None]:
    """clSetKernelArgSVMPointer, which these implementations take any address of this process for."""
    maps = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    library = ctypes.CDLL(next(line.split()[-1] for line in maps if "libOpenCL" in line))
    function = library.clSetKernelArgSVMPointer
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p]

    def set_pointer(kernel: int, place: int, address: int) -> None:
        assert function(kernel, place, address) == 0

    return set_pointer
