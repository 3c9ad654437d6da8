"""Runs a decoder that the tvm backend compiled, from its folder alone.

Only TVM's small runtime is loaded, not its compiler. The weights are mapped: opening is quick, and
they take memory once, however many processes read them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slmc import digest
from slmc.checkpoint.stored import StoredTensor, read_header
from slmc.errors import CheckpointError, MissingToolError, RunnerError
from slmc.models.compiled import ALIGNMENT, WEIGHTS, Buffer, CompiledDecoder, read_compiled
from slmc.target import cpu_features

if TYPE_CHECKING:
    import tvm_ffi

_CPU, _POOLED_ALLOCATOR = 1, 2
"""TVM's numbers for them."""
_SHARED_CORES = -3
"""TVM's mode in which its threads run wherever the system puts them. By itself it binds the process to the
cores that it takes for the fast ones: on a virtual machine to the first alone."""
_DTYPES = {"F32": np.float32, "BF16": np.uint16, "U8": np.uint8}
"""Of stored tensors, as the kernels take them."""


class TvmEngine:
    """A compiled decoder with its cache. Raises RunnerError for a damaged folder, or a call beyond the context."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        if threads < 1:
            raise RunnerError(f"{threads} threads", expected="at least one")
        self._compiled = read_compiled(folder)
        self._position = 0
        self._machine = _load_library(folder, self._compiled, threads)
        import tvm_ffi

        self._prefill, self._decode = self._machine["prefill"], self._machine["decode"]
        self._parameters = tvm_ffi.convert([tvm_ffi.from_dlpack(a) for a in _map_weights(folder, self._compiled)])
        self._caches = [tvm_ffi.from_dlpack(_zeros(buffer)) for buffer in (self._compiled.keys, self._compiled.values)]

    @property
    def precision(self) -> str:
        """Of the weights."""
        return " and ".join(f"int{bits}" for bits in self._compiled.bits)

    @property
    def vocab_size(self) -> int:
        return self._compiled.vocab_size

    @property
    def context(self) -> int:
        """How many tokens it can hold."""
        return self._compiled.context

    @property
    def position(self) -> int:
        """How many tokens it holds now."""
        return self._position

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; the next token's logits after the last of them, float32 [vocab_size]."""
        if not ids:
            raise RunnerError("no tokens to read")
        if self._position + len(ids) > self.context:
            raise RunnerError(
                f"{len(ids)} tokens after {self._position} don't fit", expected=f"a context of {self.context} in all"
            )
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            raise RunnerError(f"a token outside the vocabulary of {self.vocab_size}", where=f"tokens {list(ids)[:8]}")
        tokens = np.asarray(ids, np.int32)
        step = self._compiled.prefill_tokens
        for start in range(0, len(tokens), step):
            logits = self._call(tokens[start : start + step])
        if not np.isfinite(logits).all():
            raise RunnerError("the model answered with values that are no numbers", where=f"token {self._position}")
        return logits

    def rewind(self, position: int) -> None:
        """Forget what was read from a position on."""
        if not 0 <= position <= self._position:
            raise RunnerError(f"can't rewind to {position}", expected=f"a position from 0 to {self._position}")
        self._position = position

    def _call(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        import tvm_ffi

        function = self._decode if len(ids) == 1 else self._prefill
        inputs = (tvm_ffi.from_dlpack(array) for array in (ids, np.array([self._position], np.int32)))
        logits = np.from_dlpack(function(*inputs, *self._caches, self._parameters))
        self._position += len(ids)
        return np.array(logits[0, : self.vocab_size])


def _load_library(folder: Path, compiled: CompiledDecoder, threads: int) -> tvm_ffi.Module:
    """The virtual machine with the decoder's functions. What would end the process is found beforehand."""
    _load_runtime()
    import tvm_ffi

    library = (folder / compiled.library).resolve()
    missing = sorted(set(compiled.cpu_features) - cpu_features())
    if missing:
        raise RunnerError(
            f"compiled for a CPU with {', '.join(missing)}, which this one lacks",
            where=folder,
            todo="build it on this machine",
        )
    if not library.is_file() or digest.of_file(library) != compiled.library_sha256:
        raise RunnerError("the compiled library is missing or damaged", where=library, todo="build or copy it again")
    cores = [str(core) for core in _cores()]
    tvm_ffi.get_global_func("runtime.config_threadpool")(_SHARED_CORES, threads, cores)
    try:
        machine: tvm_ffi.Module = tvm_ffi.load_module(str(library))["vm_load_executable"]()
        machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
    except (RuntimeError, AttributeError, OSError) as error:
        raise RunnerError(
            f"the compiled library can't be loaded: {error}",
            where=library,
            expected=f"a library for {compiled.triple}, {compiled.cpu}",
        ) from None
    return machine


def _cores() -> Sequence[int]:
    """The cores that this process may run on."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


@cache
def _load_runtime() -> ctypes.CDLL:
    """TVM's runtime into this process, whose functions a compiled library then finds."""
    package = importlib.util.find_spec("tvm")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("tvm_ffi") is None:
        raise MissingToolError("TVM's runtime is not installed", todo="pip install 'slmc[tvm]'")
    import tvm_ffi  # noqa: F401 - the runtime needs its library to be there first

    name = "libtvm_runtime.dylib" if sys.platform == "darwin" else "libtvm_runtime.so"
    path = Path(package.submodule_search_locations[0]) / "lib" / name
    try:
        return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingToolError(f"TVM's runtime can't be loaded: {error}", where=path) from None


def _map_weights(folder: Path, compiled: CompiledDecoder) -> list[NDArray[np.generic]]:
    """The parameters in the functions' order, mapped, without a copy."""
    path = folder / WEIGHTS
    try:
        header = read_header(path)
    except CheckpointError as error:
        raise RunnerError(error.what, where=path) from None
    missing = [name for name in compiled.parameters if name not in header]
    if missing:
        raise RunnerError(f"{missing[0]} is missing", where=path)
    # Copy on write: TVM takes no read-only arrays, and no kernel writes to these.
    mapped = np.memmap(path, np.uint8, mode="c")
    return [_view(mapped, header[name]) for name in compiled.parameters]


def _view(mapped: NDArray[np.uint8], tensor: StoredTensor) -> NDArray[np.generic]:
    if tensor.dtype not in _DTYPES or tensor.offset % ALIGNMENT:
        raise RunnerError(
            f"a tensor of type {tensor.dtype} at byte {tensor.offset}",
            where=tensor.file,
            expected=f"one of {', '.join(_DTYPES)}, at a multiple of {ALIGNMENT}",
        )
    return mapped[tensor.offset : tensor.offset + tensor.size].view(_DTYPES[tensor.dtype]).reshape(tensor.shape)


def _zeros(buffer: Buffer) -> NDArray[np.generic]:
    """Zeros that begin at a multiple of the alignment; the system gives their memory when it is first used."""
    size = int(np.prod(buffer.shape, dtype=np.int64)) * np.dtype(buffer.dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(buffer.dtype).reshape(buffer.shape)
