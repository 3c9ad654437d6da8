"""Stands in for Apple's runtime: a package's functions, interpreted over one state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slmc.errors import MissingToolError
from slmc.models.packaged import DECODE, FULL_LOGITS, PREFILL
from slmc.runners.coreml_engine import Inputs


class SimulatedMachine:
    name = "simulated"

    def __init__(self, package: Path, threads: int = 1) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingToolError(
                f"the simulation needs torch: {error}", todo="pip install 'slmc[reference]'"
            ) from None
        from slmc.mil.interpreter import Interpreter
        from slmc.mil.package import Package

        torch.set_num_threads(threads)
        opened = Package(package)
        self._functions = {name: Interpreter(opened, name) for name in (PREFILL, DECODE, FULL_LOGITS)}
        self._state = self._functions[PREFILL].new_state()

    def run(self, function: str, inputs: Inputs) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
            logits: NDArray[np.float32] = self._functions[function].run(tensors, self._state)["logits"].float().numpy()
        return logits
