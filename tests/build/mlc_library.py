"""Calls a model library's functions by name, with a cache, as MLC's engine does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from slmc.backends.mlc.library.settings import Settings
from slmc.models.mlc import read_mlc

from .family_case import Logits
from .mlc_model import CHUNK
from .variants import CONTEXT

tvm = pytest.importorskip("tvm")
Array = npt.NDArray[Any]


class Library(NamedTuple):
    folder: Path
    machine: Any
    """TVM's, with the library's functions."""
    weights: Any
    device: str

    def call(self, function: str, *inputs: Any) -> Any:
        """By name, as MLC's engine looks it up."""
        found = self.machine.module.get_function(function, True)
        return found(*(self.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs))

    def tensor(self, values: Array) -> Any:
        return tvm.runtime.tensor(np.ascontiguousarray(values), tvm.device(self.device, 0))

    def embedded(self, tokens: Sequence[int]) -> Array:
        found: Array = self.call("embed", np.array(tokens, np.int32), self.weights).numpy()
        return found


class Cache:
    """With so many sequences."""

    def __init__(self, library: Library, sequences: int = 1) -> None:
        sizes = (sequences, CONTEXT, 128, 16, 0)
        shapes = [tvm.runtime.ShapeTuple([size]) for size in sizes]
        self._library, self._cache = library, library.machine["create_tir_paged_kv_cache"](*shapes)
        for sequence in range(sequences):
            self._do("add_sequence", sequence)

    def _do(self, verb: str, *values: Any) -> None:
        tvm.get_global_func(f"vm.builtin.kv_state_{verb}")(self._cache, *values)

    def forward(self, function: str, sequences: Sequence[int], lengths: Sequence[int], *inputs: Any) -> Logits:
        """Logits, whatever their shape."""
        shape = tvm.runtime.ShapeTuple
        self._do("begin_forward", shape(sequences), shape(lengths))
        found: Logits = self._library.call(function, *inputs, self._cache, self._library.weights)[0].numpy()
        self._do("end_forward")
        return found

    def every(self, tokens: Sequence[int]) -> Logits:
        """After each token, read in chunks."""
        parts = [tokens[start : start + CHUNK] for start in range(0, len(tokens), CHUNK)]
        embedded = [self._library.embedded(part)[None] for part in parts]
        read = zip(parts, embedded, strict=True)
        return np.concatenate([self.forward("batch_verify", [0], [len(part)], x)[0] for part, x in read])

    def step(self, token: int) -> Logits:
        return self.forward("decode", [0], [1], self._library.embedded([token])[None])[0, 0]


def settings(folder: Path) -> Settings:
    made = read_mlc(folder)
    return Settings(
        target="android",
        form=made.quantization,
        context=made.context,
        chunk=made.chunk,
        model_id=made.model_id,
        name=made.model_lib,
    )


def check(found: Logits, wanted: Logits, share: float = 1e-5) -> None:
    assert np.abs(found - wanted).max() < share * np.ptp(wanted)
