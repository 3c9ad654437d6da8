"""The Mac's side of the coreml runner, Apple's tools and coremltools stood in for: what is asked of them, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slmc.backends.coreml.compile import compile_model
from slmc.errors import MissingToolError, RunnerError
from slmc.models.packaged import DECODE, PREFILL
from slmc.runners.coreml_apple import AppleMachine, run_command
from slmc.runners.coreml_engine import CoremlEngine
from slmc.runners.coreml_simulated import SimulatedMachine

from .family_case import ids, quantized
from .variants import VARIANTS

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


class MLGPUComputeDevice:
    pass


class MLCPUComputeDevice:
    pass


@dataclass
class Mac:
    """coremltools as it is on a Mac, over the simulator."""

    fallen: str | None = None
    """An operation that Core ML would run on the CPU."""
    commands: list[list[str]] = field(default_factory=list)
    opened: list[tuple[str, str]] = field(default_factory=list)

    def run(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))
        (Path(command[-1]) / "model.mlmodelc").mkdir()

    @property
    def coremltools(self) -> Any:
        def load(path: str, compute_units: str) -> Any:
            assert Path(path).is_dir()
            assert compute_units == "CPU_AND_GPU"
            return self._plan()

        plan = SimpleNamespace(MLComputePlan=SimpleNamespace(load_from_path=load))
        models = SimpleNamespace(MLModel=self._model, compute_plan=plan)
        units = SimpleNamespace(CPU_AND_GPU="CPU_AND_GPU", CPU_AND_NE="CPU_AND_NE", CPU_ONLY="CPU_ONLY")
        return SimpleNamespace(models=models, ComputeUnit=units)

    def _plan(self) -> Any:
        operations = [
            SimpleNamespace(operator_name=name) for name in ("const", "ios18.linear", "ios18.add", "ios18.conv")
        ]
        block = SimpleNamespace(operations=operations)
        functions = {name: SimpleNamespace(block=block) for name in (PREFILL, DECODE)}

        def usage(operation: Any) -> Any:
            kind = MLCPUComputeDevice if operation.operator_name == self.fallen else MLGPUComputeDevice
            return SimpleNamespace(preferred_compute_device=kind())

        program = SimpleNamespace(functions=functions)
        return SimpleNamespace(
            model_structure=SimpleNamespace(program=program), get_compute_device_usage_for_mlprogram_operation=usage
        )

    def _model(self, path: str, function_name: str, compute_units: str) -> Any:
        self.opened.append((function_name, compute_units))

        def predict(inputs: dict[str, Any], state: SimulatedMachine) -> dict[str, Any]:
            return {"logits": state.run(function_name, inputs).astype(np.float16)}

        return SimpleNamespace(make_state=lambda: SimulatedMachine(Path(path)), predict=predict)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apple")
    model = quantized(VARIANTS["llama: untied"], folder)
    (folder / "packaged").mkdir()
    compile_model(model, folder / "packaged", lambda _: None, context=64, chunk=16, metadata_={})
    return folder / "packaged"


def engine(artifact: Path, mac: Mac) -> CoremlEngine:
    return CoremlEngine(artifact, lambda package: AppleMachine(package, "cpuAndGPU", mac.run, mac.coremltools))


def test_both_functions_go_over_one_state(artifact: Path) -> None:
    mac, tokens = Mac(), ids(30)
    apple, simulated = engine(artifact, mac), CoremlEngine(artifact, SimulatedMachine)
    for part in (tokens[:20], tokens[20:21], tokens[21:]):
        np.testing.assert_array_equal(apple.extend(part), simulated.extend(part))
    assert mac.opened == [(PREFILL, "CPU_AND_GPU"), (DECODE, "CPU_AND_GPU")]
    [command] = mac.commands
    assert command[:3] == ["xcrun", "coremlcompiler", "compile"]
    assert command[3].endswith("model.mlpackage")


def test_a_product_on_the_cpu_is_no_silent_fall_back(artifact: Path) -> None:
    with pytest.raises(RunnerError, match=r"does not run .* where cpuAndGPU promises: 1 on MLCPUComputeDevice"):
        engine(artifact, Mac(fallen="ios18.linear"))


def test_other_operations_may_run_anywhere(artifact: Path) -> None:
    engine(artifact, Mac(fallen="ios18.add"))


def test_what_a_tool_says_is_told() -> None:
    with pytest.raises(RunnerError, match="no such model"):
        run_command(["sh", "-c", "echo no such model >&2; exit 3"])
    with pytest.raises(MissingToolError, match="xcrun-that-is-not-there"):
        run_command(["xcrun-that-is-not-there"])
