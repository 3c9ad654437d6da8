"""The runner of the first two rungs: `python -m slmc.runners.reference --model FOLDER --workload FILE --result FILE`.

Runs a merged checkpoint in its own precision, or a quantized one with its weights dequantized,
in transformers' own code.
"""

from __future__ import annotations

import time
from importlib import metadata
from pathlib import Path
from typing import get_args

from slmc.runners import machine, program
from slmc.runners.batches import answers
from slmc.runners.contract import Environment, Footer, ResultHeader
from slmc.runners.files import ResultWriter, read_workload
from slmc.runners.torch_model import DeviceName, load


def main() -> None:
    parser = program.options("Answer a workload with a checkpoint, in transformers.", threads=machine.cores())
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", choices=get_args(DeviceName), default="auto")
    chosen = parser.parse_args()
    workload = read_workload(chosen.workload)
    start = time.perf_counter()
    loaded = load(chosen.model, chosen.device)
    load_ms = (time.perf_counter() - start) * 1000
    import torch

    torch.set_num_threads(chosen.threads)
    environment = Environment(
        device=loaded.device_name or machine.device_name(),
        os=machine.system_name(),
        runtime="transformers",
        version=f"{metadata.version('transformers')}, torch {torch.__version__}",
        threads=chosen.threads,
        thermal=None,
        artifact=program.artifact_digest(chosen.model),
        precision=loaded.precision,
        batched=True,
    )
    header = ResultHeader(workload=workload.digest, environment=environment)
    with torch.inference_mode(), ResultWriter(chosen.result, header) as writer:
        for answer in answers(loaded, workload, program.open_codec(chosen.codec)):
            writer.answer(answer)
        writer.finish(Footer(peak_memory_bytes=machine.peak_memory_bytes(), load_ms=load_ms))


if __name__ == "__main__":
    program.end(main)
