"""The runner of the mlc backend on this machine: `python -m slmc.runners.mlc --artifact FOLDER --library FILE ...`.

It is not MLC's engine and no GPU: the same functions over the same weights, compiled for the CPU.
"""

from __future__ import annotations

import time
from pathlib import Path

from slmc.runners import machine, program
from slmc.runners.contract import Environment
from slmc.runners.files import read_workload
from slmc.runners.mlc_engine import MlcEngine


def main() -> None:
    parser = program.options("Answer a workload with a model that the mlc backend wrote, on the CPU.", threads=1)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="compiled for this machine")
    chosen = parser.parse_args()
    workload = read_workload(chosen.workload)
    start = time.perf_counter()
    engine = MlcEngine(chosen.artifact, chosen.library, chosen.threads)
    load_ms = (time.perf_counter() - start) * 1000
    environment = Environment(
        device=machine.device_name(),
        os=machine.system_name(),
        runtime="mlc-cpu",
        version=f"TVM {engine.version}",
        threads=chosen.threads,
        thermal=None,
        artifact=program.artifact_digest(chosen.artifact),
        precision=engine.precision,
        activations="float16" if engine.precision == "q4f16_1" else "float32",
        simulated=True,
        batched=False,
    )
    program.answer(engine, chosen, workload, environment, load_ms)


if __name__ == "__main__":
    program.end(main)
