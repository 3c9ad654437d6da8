"""Steps through a decoder that the mlc backend wrote, as MLC's engine does, on this machine's CPU.

Weights, configuration and functions are a phone's; the library is compiled from the same program for this CPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmc.errors import MissingToolError, RunnerError
from slmc.models.mlc import read_mlc, weights_digest
from slmc.runners.engine import check_finite, check_rewind, check_tokens

_PAGE = 16
"""Tokens, as MLC's engine has it."""
_SEQUENCE = 0


class MlcEngine:
    """A decoder with its cache. Raises RunnerError for a damaged folder, or a call beyond the context."""

    kernels = "CPU"

    def __init__(self, folder: Path, library: Path, threads: int = 1) -> None:
        made = read_mlc(folder)
        if weights_digest(folder / made.model_id) != made.weights_sha256:
            raise RunnerError("weights are missing or damaged", where=folder, todo="build or copy it again")
        self.vocab_size, self.context, self.precision = made.vocab_size, made.context, made.quantization
        self._tvm, self._chunk = _tvm(threads), made.chunk
        self.version: str = self._tvm.__version__
        self._device = self._tvm.cpu()
        self._machine = self._tvm.relax.VirtualMachine(self._tvm.runtime.load_module(str(library)), self._device)
        self._weights = load_weights(self._tvm, self._machine, folder / made.model_id, "cpu")
        sizes = (1, self.context, self._chunk, _PAGE, 0)
        shapes = [self._tvm.runtime.ShapeTuple([size]) for size in sizes]
        self._cache = self._machine["create_tir_paged_kv_cache"](*shapes)
        self._state("add_sequence", _SEQUENCE)
        self.position = 0

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; the next token's logits after the last of them, float32 [vocab_size]."""
        check_tokens(self, ids)
        for start in range(0, len(ids), self._chunk):
            part = ids[start : start + self._chunk]
            logits = self._read(part)
            self.position += len(part)
        return check_finite(logits)

    def rewind(self, position: int) -> None:
        """Forget what was read from a position on."""
        check_rewind(self, position)
        if position == 0:
            self._state("remove_sequence", _SEQUENCE)
            self._state("add_sequence", _SEQUENCE)
        elif position < self.position:
            self._state("popn", _SEQUENCE, self.position - position)
        self.position = position

    def _read(self, ids: Sequence[int]) -> NDArray[np.float32]:
        shape, tensor = self._tvm.runtime.ShapeTuple, self._tvm.runtime.tensor
        embeddings = self._machine["embed"](tensor(np.array(ids, np.int32), self._device), self._weights)
        batch = embeddings.numpy()[None]
        self._state("begin_forward", shape([_SEQUENCE]), shape([len(ids)]))
        function = self._machine["decode" if len(ids) == 1 else "prefill"]
        logits: NDArray[np.float32] = function(tensor(batch, self._device), self._cache, self._weights)[0].numpy()
        self._state("end_forward")
        return logits.reshape(-1)

    def _state(self, verb: str, *values: Any) -> None:
        self._tvm.get_global_func(f"vm.builtin.kv_state_{verb}")(self._cache, *values)


def load_weights(tvm: Any, machine: Any, folder: Path, device: str) -> Any:
    """What a library asks for, by TVM's own reader of MLC's files. Raises what TVM does for one that is not there."""
    names = [one["name"] for one in json.loads(machine["_metadata"]())["params"]]
    cache, where = "vm.builtin.tensor_cache", tvm.device(device, 0)
    tvm.get_global_func(f"{cache}.load")(str(folder), where.dlpack_device_type(), where.index)
    try:
        return tvm.get_global_func("vm.builtin.param_array_from_cache_by_name")(names)
    finally:
        tvm.get_global_func(f"{cache}.clear")()


def _tvm(threads: int) -> Any:
    import os

    os.environ["TVM_NUM_THREADS"] = str(threads)  # read when the first kernel runs
    try:
        import tvm
        from tvm import relax  # noqa: F401 - registers the machine
    except ImportError as error:
        raise MissingToolError(f"TVM is not installed: {error}", todo="pip install 'slmc[mlc]'") from None
    return tvm
