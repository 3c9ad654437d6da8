"""Apple's own runtime, through coremltools on a Mac: functions of one package over one MLState.

Where Core ML places operations is asked before anything is answered (MLComputePlan): what a fall-back to the CPU
would only slow down is an error.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slmc.errors import MissingToolError, RunnerError
from slmc.models.packaged import DECODE, PREFILL
from slmc.runners.coreml_engine import Inputs

Units = Literal["cpuAndGPU", "cpuAndNeuralEngine", "cpuOnly"]
_PLACES: Mapping[Units, str] = {
    "cpuAndGPU": "MLGPUComputeDevice",
    "cpuAndNeuralEngine": "MLNeuralEngineComputeDevice",
    "cpuOnly": "MLCPUComputeDevice",
}
"""Where the matrix products are to run."""
UNITS: Mapping[str, Units] = {"gpu": "cpuAndGPU", "ane": "cpuAndNeuralEngine"}
"""By what a package is laid out for."""
_UNITS: Mapping[Units, str] = {"cpuAndGPU": "CPU_AND_GPU", "cpuAndNeuralEngine": "CPU_AND_NE", "cpuOnly": "CPU_ONLY"}
"""As coremltools names them."""
_PRODUCTS = frozenset({"linear", "matmul", "conv", "scaled_dot_product_attention"})
"""Operation types, without the operation set's prefix."""

Run = Callable[[Sequence[str]], None]


def run_command(command: Sequence[str]) -> None:
    """Raises MissingToolError for a program that is not there, RunnerError for one that fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingToolError(f"{command[0]}: {error}", todo="install Xcode's command line tools") from None
    if done.returncode:
        raise RunnerError(f"{' '.join(command[:3])} failed\n{done.stderr.strip()}")


class AppleMachine:
    """Raises RunnerError where a matrix product would not run where the units promise."""

    def __init__(self, package: Path, units: Units, run: Run = run_command, coremltools: Any = None) -> None:
        tools = coremltools or _coremltools()
        chosen = getattr(tools.ComputeUnit, _UNITS[units])
        self.name: str = units
        with TemporaryDirectory() as folder:
            run(["xcrun", "coremlcompiler", "compile", str(package), folder])
            compiled = Path(folder) / f"{package.stem}.mlmodelc"
            _check_placement(tools, compiled, chosen, units)
        functions = (PREFILL, DECODE)
        self._models = {
            name: tools.models.MLModel(str(package), function_name=name, compute_units=chosen) for name in functions
        }
        self._state = self._models[PREFILL].make_state()

    def run(self, function: str, inputs: Inputs) -> NDArray[np.float32]:
        found = self._models[function].predict(dict(inputs), state=self._state)
        return np.asarray(found["logits"], np.float32)


def _coremltools() -> Any:
    try:
        import coremltools
    except ImportError as error:
        raise MissingToolError(f"coremltools is not installed: {error}", todo="pip install 'slmc[coreml]'") from None
    return coremltools


def _check_placement(tools: Any, compiled: Path, chosen: Any, units: Units) -> None:
    found = placement(tools, compiled, chosen)
    elsewhere = {name: places for name, places in found.items() if set(places) != {_PLACES[units]}}
    for name, places in elsewhere.items():
        told = ", ".join(f"{count} on {place}" for place, count in sorted(places.items()))
        raise RunnerError(
            f"Core ML does not run {name}'s matrix products where {units} promises: {told}",
            expected=f"all on {_PLACES[units]}",
            todo="another profile or device; the report of Xcode's performance tab names the operations",
        )


def placement(tools: Any, compiled: Path, chosen: Any) -> dict[str, Counter[str]]:
    """By function, how many matrix products each kind of device would run."""
    plan = tools.models.compute_plan.MLComputePlan.load_from_path(path=str(compiled), compute_units=chosen)
    found: dict[str, Counter[str]] = {}
    for name, function in plan.model_structure.program.functions.items():
        places = found.setdefault(name, Counter())
        for operation in function.block.operations:
            if operation.operator_name.rpartition(".")[2] not in _PRODUCTS:
                continue
            usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
            places["none" if usage is None else type(usage.preferred_compute_device).__name__] += 1
    return found
