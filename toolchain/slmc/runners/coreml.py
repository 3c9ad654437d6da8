"""The runner of the coreml backend: `python -m slmc.runners.coreml --artifact FOLDER --workload FILE ...`.

On a Mac by Apple's own runtime; anywhere else, or with `--simulate`, by an interpreter of the saved package.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import get_args

from slmc.models.packaged import read_packaged
from slmc.runners import machine, program
from slmc.runners.contract import Environment
from slmc.runners.coreml_apple import UNITS, AppleMachine, Units
from slmc.runners.coreml_engine import CoremlEngine, Machine
from slmc.runners.coreml_simulated import SimulatedMachine
from slmc.runners.files import read_workload

_ON_A_MAC = platform.system() == "Darwin"


def open_coreml(
    artifact: Path, threads: int, *, simulated: bool = not _ON_A_MAC, units: Units | None = None
) -> CoremlEngine:
    """Raises RunnerError for a damaged folder; on a Mac, where matrix products would fall back to the CPU."""

    def machine(package: Path) -> Machine:
        if simulated:
            return SimulatedMachine(package, threads)
        return AppleMachine(package, units or UNITS[read_packaged(artifact).delegate])

    return CoremlEngine(artifact, machine)


def main() -> None:
    parser = program.options("Answer a workload with a model that the coreml backend packaged.", threads=1)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--simulate", action="store_true", default=not _ON_A_MAC)
    parser.add_argument("--units", choices=get_args(Units), help="on a Mac; by default those that it is laid out for")
    program.task_options(parser)
    chosen = parser.parse_args()
    workload = read_workload(chosen.workload)
    start = time.perf_counter()
    simulated = chosen.simulate

    engine = open_coreml(chosen.artifact, chosen.threads, simulated=simulated, units=chosen.units)
    decider = program.open_decider(engine, chosen)
    load_ms = (time.perf_counter() - start) * 1000
    environment = Environment(
        device=machine.device_name(),
        os=machine.system_name(),
        runtime="coreml-sim" if simulated else "coreml",
        version=engine.kernels,
        threads=chosen.threads if simulated else None,
        thermal=None,
        artifact=program.artifact_digest(chosen.artifact),
        precision="as stored, activations fp16",
        simulated=simulated,
        batched=False,
    )
    program.answer(engine, chosen, workload, environment, load_ms, decider)


if __name__ == "__main__":
    program.end(main)
