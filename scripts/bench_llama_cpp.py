#!/usr/bin/env python3
"""Speed of our compiled decoder against llama.cpp on this machine, the same shape and the same bits.

    scripts/bench [--shape llama-3.2-1b] [--threads 1] [--rounds 5] [--folder KEEP] [--json FILE]

Makes a model with random weights, builds it for this machine, and writes it as GGUF with every matrix in
Q4_0 (4.5 bits a weight, as ours). Each round runs both, one after the other, each in a process of its
own, so that a machine that slows down slows both. Speeds are medians over the rounds; the ratio is the
median of each round's own ratio. llama.cpp comes from the package llama-cpp-python: its wheel on PyPI
is source, built for this very CPU, and what it was built with is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from make_random_model import SHAPES, write_model
from slmc.artifacts import MergedCheckpoint
from slmc.backends.tvm.compile import compile_model
from slmc.backends.tvm.tools import check_tools
from slmc.checkpoint.reader import open_checkpoint
from slmc.quant.quantizer import quantize
from slmc.quant.reader import open_quantized
from slmc.quant.schemes import SCHEMES
from slmc.runners.native_engine import NativeEngine
from slmc.target import load_target, native_triples

CONTEXT = 4608
DECODED = 64
PROMPTS = (128, 512)
OURS, THEIRS = "slmc", "llama.cpp"
Speeds = dict[str, float]
"""Tokens a second by task."""


def build_ours(base: Path, folder: Path) -> Path:
    """Quantize, once in a folder, and compile with the code as it is now; the artifact's folder."""
    quantized, artifact = folder / "quantized", folder / "artifact"
    if not quantized.is_dir():
        made = folder / "quantized.partial"
        made.mkdir()
        checkpoint = open_checkpoint(base)
        merged = MergedCheckpoint(base, checkpoint.architecture, checkpoint.digest)
        quantize(merged, SCHEMES["int4-g32"], (), made, _ignore)
        made.rename(quantized)
    shutil.rmtree(artifact, ignore_errors=True)
    artifact.mkdir()
    triples = native_triples(load_target("host"))
    compile_model(open_quantized(quantized), artifact, _ignore, triples=triples, context=CONTEXT)
    return artifact


def run_ours(artifact: Path, threads: int) -> Speeds:
    engine = NativeEngine(artifact, threads, verify=False)

    def read(ids: list[int]) -> None:
        engine.extend(ids)

    return measure(read, lambda: engine.rewind(0), engine.vocab_size)


def run_theirs(path: Path, threads: int) -> Speeds:
    import ctypes

    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch = CONTEXT, max(PROMPTS)
    options.n_threads = options.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise SystemExit("llama.cpp can't open the model")
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def read(ids: list[int]) -> None:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) != 0:
            raise SystemExit("llama.cpp failed")
        llama_cpp.llama_get_logits_ith(context, -1)

    return measure(read, lambda: llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True), vocabulary)


def measure(read: Callable[[list[int]], None], restart: Callable[[], None], vocabulary: int) -> Speeds:
    """Each task once after a warm-up: its tokens are read, and the logits after the last are there."""
    ids = [(7919 * index + 13) % vocabulary for index in range(max(PROMPTS))]
    read(ids[:32])
    read(ids[:1])
    speeds: Speeds = {}
    for count in PROMPTS:
        restart()
        start = time.perf_counter()
        read(ids[:count])
        speeds[f"prefill({count})"] = count / (time.perf_counter() - start)
    restart()
    start = time.perf_counter()
    for token in ids[:DECODED]:
        read([token])
    speeds[f"decode({DECODED})"] = DECODED / (time.perf_counter() - start)
    return speeds


def in_own_process(name: str, model: Path, threads: int) -> Speeds:
    command = [sys.executable, __file__, "--run", name, "--model", str(model), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    speeds: Speeds = json.loads(done.stdout.splitlines()[-1])
    return speeds


def summarize(rounds: list[dict[str, Speeds]]) -> dict[str, Speeds]:
    """Medians and the spread of the paired ratio, by task."""
    table = {}
    for task in rounds[0][OURS]:
        ratios = [speeds[OURS][task] / speeds[THEIRS][task] for speeds in rounds]
        table[task] = {
            OURS: statistics.median(speeds[OURS][task] for speeds in rounds),
            THEIRS: statistics.median(speeds[THEIRS][task] for speeds in rounds),
            "ratio": statistics.median(ratios),
            "lowest ratio": min(ratios),
            "highest ratio": max(ratios),
        }
    return table


def show(summary: dict[str, Speeds], title: str, caption: str) -> None:
    table = Table(title=title, caption=caption, caption_justify="left")
    columns = (OURS, THEIRS, "ratio", "lowest ratio", "highest ratio")
    for column in ("tokens/s", *columns):
        table.add_column(column, justify="left" if column == "tokens/s" else "right")
    for task, values in summary.items():
        table.add_row(task, *(f"{values[column]:.{1 if column in (OURS, THEIRS) else 2}f}" for column in columns))
    Console().print(table)


def bench(options: argparse.Namespace, folder: Path) -> None:
    import gguf
    import llama_cpp

    from gguf_export import write_gguf

    check_tools()
    folder.mkdir(parents=True, exist_ok=True)
    base, gguf_file = folder / "base", folder / "model.gguf"
    if not base.is_dir():
        write_model(base, options.shape)
    artifact = build_ours(base, folder)
    if not gguf_file.is_file():
        write_gguf(base, gguf_file, context=CONTEXT, matrices=gguf.GGMLQuantizationType.Q4_0)
    rounds = []
    for number in range(options.rounds):
        pair = {OURS: artifact, THEIRS: gguf_file}
        rounds.append({name: in_own_process(name, model, options.threads) for name, model in pair.items()})
        print(f"round {number + 1}: {json.dumps(rounds[-1])}", file=sys.stderr)
    summary = summarize(rounds)
    system = llama_cpp.llama_print_system_info().decode().strip(" |")
    facts = {
        "shape": options.shape,
        "threads": options.threads,
        "llama_cpp_python": llama_cpp.__version__,
        "llama_cpp_system": system,
        "slmc_kernels": NativeEngine(artifact).kernels,
        "slmc_bytes": sum(path.stat().st_size for path in artifact.iterdir()),
        "gguf_bytes": gguf_file.stat().st_size,
    }
    title = f"{options.shape}, {options.threads} thread(s), {options.rounds} rounds in alternation"
    show(summary, title, "\n".join(f"{key}: {value}" for key, value in facts.items()))
    if options.json:
        options.json.write_text(json.dumps({**facts, "summary": summary, "rounds": rounds}, indent=2) + "\n")


def _ignore(_: int) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of our compiled decoder against llama.cpp's Q4_0.")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the models are made, and found again the next time")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--run", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run = run_ours if options.run == OURS else run_theirs
        print(json.dumps(run(options.model, options.threads)))
    elif options.folder:
        bench(options, options.folder / options.shape)
    else:
        with TemporaryDirectory() as folder:
            bench(options, Path(folder))


if __name__ == "__main__":
    main()
