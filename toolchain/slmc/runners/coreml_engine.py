"""Steps through a decoder that the coreml backend packaged, on Apple's runtime or on what stands in for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slmc.errors import RunnerError
from slmc.models.packaged import DECODE, PACKAGE, PREFILL, package_digest, read_packaged
from slmc.runners.engine import check_finite, check_rewind, check_tokens

Inputs = Mapping[str, NDArray[np.int32]]


class Machine(Protocol):
    """What runs a package's functions over one state."""

    name: str
    """Such as "cpuAndGPU", or "simulated"."""

    def run(self, function: str, inputs: Inputs) -> NDArray[np.float32]:
        """Logits, float32 [1, any, vocab_size]."""


class Opens(Protocol):
    def __call__(self, package: Path) -> Machine: ...


class CoremlEngine:
    """A packaged decoder with its state. Raises RunnerError for a damaged folder, or a call beyond the context."""

    def __init__(self, folder: Path, opens: Opens) -> None:
        packaged, package = read_packaged(folder), folder / PACKAGE
        if not package.is_dir() or package_digest(package) != packaged.package_sha256:
            raise RunnerError("the package is missing or damaged", where=package, todo="build or copy it again")
        self._machine, self._chunk = opens(package), packaged.chunk
        self.vocab_size, self.context = packaged.vocab_size, packaged.context
        self.position = 0

    @property
    def kernels(self) -> str:
        return self._machine.name

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; the next token's logits after the last of them, float32 [vocab_size]."""
        check_tokens(self, ids)
        left = list(ids)
        while left:
            part, left = self._next(left)
            logits = self._read(part)
            self.position += len(part)
        return logits

    def rewind(self, position: int) -> None:
        """Forget what was read from a position on."""
        check_rewind(self, position)
        self.position = position

    def _next(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """A chunk where one fits the context, padded or not; else a token."""
        fits = len(ids) > 1 and self.position + self._chunk <= self.context
        count = min(self._chunk, len(ids)) if fits else 1
        return ids[:count], ids[count:]

    def _read(self, ids: Sequence[int]) -> NDArray[np.float32]:
        inputs = {"position": np.array([self.position], np.int32)}
        if len(ids) == 1:
            logits = self._machine.run(DECODE, inputs | {"tokens": np.array([ids], np.int32)})
        else:
            padded = np.zeros((1, self._chunk), np.int32)
            padded[0, : len(ids)] = ids
            last = np.array([len(ids) - 1], np.int32)
            logits = self._machine.run(PREFILL, inputs | {"tokens": padded, "last": last})
        return check_finite(logits.reshape(-1))
