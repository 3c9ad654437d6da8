"""Runs a decoder that the executorch backend exported, by ExecuTorch's own Python runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmc import digest
from slmc.console import muted
from slmc.errors import MissingToolError, RunnerError
from slmc.models.exported import FOUNDATION, PROGRAM, read_exported
from slmc.names import Activations
from slmc.runners.engine import check_finite, check_rewind, check_tokens


class ExecutorchEngine:
    """An exported decoder with its cache. Raises RunnerError for a damaged folder, or a call beyond the context."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        exported, path, foundation = read_exported(folder), folder / PROGRAM, folder / FOUNDATION
        for file, wanted in ((path, exported.program_sha256), (foundation, exported.foundation_sha256)):
            if wanted is not None and (not file.is_file() or digest.of_file(file) != wanted):
                raise RunnerError("a file is missing or damaged", where=file, todo="build or copy it again")
        with muted():  # it tells of the CPU and its threads
            self._runtime = _runtime()
            self._runtime._unsafe_reset_threadpool(threads)
        try:
            data = None if exported.foundation_sha256 is None else str(foundation)
            self._program = self._runtime._load_for_executorch(str(path), data)
            self._program.method_names()  # reads the file; before, it is only opened
        except RuntimeError as error:
            raise RunnerError(f"ExecuTorch can't load the program: {error}", where=path) from None
        self.vocab_size, self.context = exported.vocab_size, exported.context
        self.position = 0
        self.kernels: str = exported.delegation.delegate
        self.version = f"{exported.versions['executorch']}, {self.kernels}"
        self.activations: Activations = "int8" if self.kernels == "xnnpack" else "float32"
        self._most = 1 if exported.one_token else self.context

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; the next token's logits after the last of them, float32 [vocab_size]."""
        check_tokens(self, ids)
        for first in range(0, len(ids), self._most):
            part = ids[first : first + self._most]
            logits: NDArray[np.float32] = self._run("forward", part)[0]
            self.position += len(part)
        return logits

    def rewind(self, position: int) -> None:
        """Forget what was read from a position on."""
        check_rewind(self, position)
        self.position = position

    def _run(self, method: str, ids: Sequence[int]) -> NDArray[np.float32]:
        import torch

        tokens, start = torch.tensor([list(ids)]), torch.tensor([self.position])
        try:
            (logits,) = self._program.run_method(method, (tokens, start))
        except RuntimeError as error:
            raise RunnerError(f"ExecuTorch failed: {error}") from None
        found: NDArray[np.float32] = logits[0].numpy().copy()  # the runtime writes over it the next time
        return check_finite(found)


def _runtime() -> Any:
    """The runtime with its operators registered."""
    try:
        import executorch.extension.llm.custom_ops.custom_ops
        import executorch.kernels.quantized  # noqa: F401
        from executorch.extension.pybindings import portable_lib
    except ImportError as error:
        raise MissingToolError(f"executorch is not installed: {error}", todo="pip install 'slmc[executorch]'") from None
    return portable_lib
