"""The runner of the executorch backend: `python -m slmc.runners.executorch --artifact FOLDER --workload FILE ...`."""

from __future__ import annotations

import time
from pathlib import Path

from slmc.runners import machine, program
from slmc.runners.contract import Environment
from slmc.runners.executorch_engine import ExecutorchEngine
from slmc.runners.files import read_workload


def main() -> None:
    parser = program.options("Answer a workload with a model that the executorch backend exported.", threads=1)
    parser.add_argument("--artifact", type=Path, required=True)
    program.task_options(parser)
    chosen = parser.parse_args()
    workload = read_workload(chosen.workload)
    start = time.perf_counter()
    engine = ExecutorchEngine(chosen.artifact, chosen.threads)
    decider = program.open_decider(engine, chosen)
    load_ms = (time.perf_counter() - start) * 1000
    environment = Environment(
        device=machine.device_name(),
        os=machine.system_name(),
        runtime="executorch",
        version=engine.version,
        threads=chosen.threads,
        thermal=None,
        artifact=program.artifact_digest(chosen.artifact),
        precision="int4",
        activations=engine.activations,
        batched=False,
    )
    program.answer(engine, chosen, workload, environment, load_ms, decider)


if __name__ == "__main__":
    program.end(main)
