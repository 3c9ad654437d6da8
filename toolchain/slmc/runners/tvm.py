"""The runner of the tvm backend: `python -m slmc.runners.tvm --artifact FOLDER --workload FILE --result FILE`."""

from __future__ import annotations

import time
from pathlib import Path

from slmc.runners import machine, program
from slmc.runners.contract import Environment
from slmc.runners.files import read_workload
from slmc.runners.native_decider import NativeDecider
from slmc.runners.native_engine import NativeEngine


def main() -> None:
    parser = program.options("Answer a workload with a model that the tvm backend compiled.", threads=1)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--library", type=Path, help="this machine's, where the artifact was built for others")
    parser.add_argument("--kernels", help="by default the best that this CPU has")
    parser.add_argument("--task", type=Path, help="task file: prompts are read and labels chosen by it, as in an app")
    parser.add_argument("--prefix", type=Path, help="file with what every prompt begins with, read beforehand")
    chosen = parser.parse_args()
    workload = read_workload(chosen.workload)
    start = time.perf_counter()
    engine = NativeEngine(chosen.artifact, chosen.threads, chosen.kernels, chosen.library)
    decider = None
    if chosen.task is not None:
        decider = NativeDecider(
            chosen.artifact,
            chosen.task,
            threads=chosen.threads,
            prefix=chosen.prefix,
            kernels=chosen.kernels,
            library=chosen.library,
        )
    load_ms = (time.perf_counter() - start) * 1000
    environment = Environment(
        device=machine.device_name(),
        os=machine.system_name(),
        runtime="slm",
        version=f"{engine.version}, {engine.kernels}",
        threads=chosen.threads,
        thermal=None,
        artifact=program.artifact_digest(chosen.artifact),
        precision=engine.precision,
        activations=engine.activations,
        batched=False,
    )
    program.answer(engine, chosen, workload, environment, load_ms, decider)


if __name__ == "__main__":
    program.end(main)
