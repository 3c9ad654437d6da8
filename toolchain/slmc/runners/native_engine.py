"""Runs a decoder that the tvm backend compiled, from its folder alone: the native library, through ctypes."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint8, c_uint64
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slmc import digest
from slmc.errors import RunnerError
from slmc.models.compiled import WEIGHTS, CompiledDecoder, library_here, read_compiled
from slmc.names import Activations
from slmc.text.native_text import Error

_VERSION = 1
"""Major version of slm.h that this speaks."""


class OpenOptions(Structure):
    """`slm_open_options`."""

    _fields_ = (("verify", c_int), ("kernels", c_char_p))


class Info(Structure):
    """`slm_model_info`."""

    _fields_ = (
        ("vocab_size", c_int32),
        ("context", c_int32),
        ("file_bytes", c_uint64),
        ("sha256", c_uint8 * 32),
        ("kernels", c_char_p),
    )


class _SessionOptions(Structure):
    _fields_ = (("context", c_int32), ("threads", c_int32))


class Stats(Structure):
    """`slm_stats`: bytes, tokens and nanoseconds since the session was made."""

    _fields_ = (
        ("memory_bytes", c_uint64),
        ("prefill_tokens", c_uint64),
        ("prefill_nanoseconds", c_uint64),
        ("decode_tokens", c_uint64),
        ("decode_nanoseconds", c_uint64),
    )


class NativeEngine:
    """A compiled decoder with its cache. Raises RunnerError for a damaged folder, or a call beyond the context."""

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        kernels: str | None = None,
        library: Path | None = None,
        *,
        verify: bool = True,
    ) -> None:
        """`kernels` names a CPU level; `library` is used in place of the folder's own; `verify` reads the whole
        weight file and holds it against its digest.
        """
        self._model, self._session = ctypes.c_void_p(), ctypes.c_void_p()
        self._compiled = read_compiled(folder)
        self._slm = load_library(library) if library else open_library(folder, self._compiled)
        error, path = Error(), folder / WEIGHTS
        options = OpenOptions(verify=int(verify), kernels=kernels.encode() if kernels else None)
        error.check(self._slm.slm_open(str(path).encode(), byref(options), byref(self._model), byref(error)), path)
        self._info = Info()
        self._slm.slm_model_info_get(self._model, byref(self._info))
        if bytes(self._info.sha256).hex() != self._compiled.weights_sha256:
            raise RunnerError("the weight file is not the one that model.json names", where=path)
        wanted = _SessionOptions(context=0, threads=threads)
        if threads < 1:
            raise RunnerError(f"{threads} threads", expected="at least one")
        made = self._slm.slm_session_new(self._model, byref(wanted), byref(self._session), byref(error))
        error.check(made, folder)

    def __del__(self) -> None:
        if self._model:
            self._slm.slm_session_free(self._session)
            self._slm.slm_close(self._model)

    @property
    def precision(self) -> str:
        """Of the weights."""
        return self._compiled.precision

    @property
    def activations(self) -> Activations:
        return self._compiled.activations

    @property
    def kernels(self) -> str:
        """The CPU level whose kernels run."""
        name: bytes = self._info.kernels
        return name.decode()

    @property
    def version(self) -> str:
        """Of the library."""
        packed: int = self._slm.slm_version()
        return f"{packed >> 16}.{packed & 0xFFFF}"

    @property
    def vocab_size(self) -> int:
        return int(self._info.vocab_size)

    @property
    def context(self) -> int:
        """How many tokens it can hold."""
        return int(self._info.context)

    @property
    def position(self) -> int:
        """How many tokens it holds now."""
        found: int = self._slm.slm_position(self._session)
        return found

    def stats(self) -> Stats:
        found = Stats()
        self._slm.slm_stats_get(self._session, byref(found))
        return found

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; the next token's logits after the last of them, float32 [vocab_size]."""
        tokens = (c_int32 * len(ids))(*ids)
        self._check(self._slm.slm_prefill(self._session, tokens, len(ids)))
        logits = self._slm.slm_logits(self._session)
        return np.ctypeslib.as_array(logits, (self.vocab_size,)).copy()

    def rewind(self, position: int) -> None:
        """Forget what was read from a position on."""
        if position < 0:
            raise RunnerError(f"can't rewind to {position}", expected=f"a position from 0 to {self.position}")
        self._check(self._slm.slm_rewind(self._session, position))

    def top(self, count: int) -> list[tuple[int, float]]:
        """The likeliest next tokens with their log-probabilities, the likeliest first."""
        ids, logprobs = (c_int32 * count)(), (c_float * count)()
        if self._slm.slm_top_k(self._session, count, ids, logprobs):
            raise RunnerError("no logits, or more tokens asked for than there are")
        return list(zip(ids, logprobs, strict=True))

    def continuations(self, continuations: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each sequence of tokens after what was read."""
        flat = [token for one in continuations for token in one]
        lengths = (c_size_t * len(continuations))(*map(len, continuations))
        found = (c_float * len(continuations))()
        tokens = (c_int32 * len(flat))(*flat)
        self._check(self._slm.slm_continuations(self._session, tokens, lengths, len(continuations), found))
        return list(found)

    def cancel(self) -> None:
        """From any thread: what is being read ends with an error."""
        self._slm.slm_cancel(self._session)

    def _check(self, status: int) -> None:
        if status:
            text: bytes = self._slm.slm_error_text(self._session)
            raise RunnerError(text.decode("utf-8", "replace"))


def open_library(folder: Path, compiled: CompiledDecoder) -> ctypes.CDLL:
    """This machine's library of an artifact, its bytes checked first. Raises RunnerError."""
    library = library_here(compiled)
    if library is None:
        raise RunnerError(
            "compiled for " + ", ".join(library.triple for library in compiled.libraries),
            where=folder,
            expected=f"a library for {platform.machine()} {platform.system()}, this machine",
            todo="build it for target host on this machine",
        )
    path = (folder / library.path).resolve()
    if not path.is_file() or digest.of_file(path) != library.sha256:
        raise RunnerError("the compiled library is missing or damaged", where=path, todo="build or copy it again")
    return load_library(path)


@cache
def load_library(path: Path) -> ctypes.CDLL:
    """A library that is trusted. Raises RunnerError where it is not for this machine, or of another version."""
    try:
        slm = ctypes.CDLL(str(path))
    except OSError as error:
        raise RunnerError(f"the compiled library can't be loaded: {error}", where=path) from None
    slm.slm_version.restype = ctypes.c_uint32
    if slm.slm_version() >> 16 != _VERSION:
        raise RunnerError(f"a library of version {slm.slm_version() >> 16}", where=path, expected=f"version {_VERSION}")
    pointer = ctypes.c_void_p
    slm.slm_open.argtypes = [c_char_p, POINTER(OpenOptions), POINTER(pointer), POINTER(Error)]
    slm.slm_model_info_get.argtypes = [pointer, POINTER(Info)]
    slm.slm_model_info_get.restype = None
    slm.slm_kernels.argtypes, slm.slm_kernels.restype = [c_size_t], c_char_p
    slm.slm_close.argtypes, slm.slm_close.restype = [pointer], None
    slm.slm_session_new.argtypes = [pointer, POINTER(_SessionOptions), POINTER(pointer), POINTER(Error)]
    slm.slm_session_free.argtypes, slm.slm_session_free.restype = [pointer], None
    slm.slm_prefill.argtypes = [pointer, POINTER(c_int32), c_size_t]
    slm.slm_logits.argtypes, slm.slm_logits.restype = [pointer], POINTER(c_float)
    slm.slm_top_k.argtypes = [pointer, c_size_t, POINTER(c_int32), POINTER(c_float)]
    slm.slm_continuations.argtypes = [pointer, POINTER(c_int32), POINTER(c_size_t), c_size_t, POINTER(c_float)]
    slm.slm_position.argtypes, slm.slm_position.restype = [pointer], c_size_t
    slm.slm_rewind.argtypes = [pointer, c_size_t]
    slm.slm_cancel.argtypes, slm.slm_cancel.restype = [pointer], None
    slm.slm_stats_get.argtypes, slm.slm_stats_get.restype = [pointer, POINTER(Stats)], None
    slm.slm_error_text.argtypes, slm.slm_error_text.restype = [pointer], c_char_p
    return slm


def runnable_kernels(slm: ctypes.CDLL) -> list[str]:
    """The CPU levels of a library that this CPU can run, the best first."""
    names: list[str] = []
    while (name := slm.slm_kernels(len(names))) is not None:
        names.append(name.decode())
    return names
