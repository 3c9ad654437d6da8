#!/usr/bin/env python3
"""How the native library's cost grows, and what it takes beside: one compiled model on this machine.

    scripts/bench-native [--shape llama-3.2-1b] [--threads 1] [--folder KEEP] [--plot FILE.svg] [--json FILE]

Decode at growing contexts and prefill of growing prompts, their rounds in turn so that a slow minute slows all alike;
medians. Then the share of this machine's read bandwidth that decoding reaches (weights read for each token, against the
best of a few sums over the same mapped file), the time to open with the file in the system's cache, resident memory
against weights and cache, the library's size, and what building libraries for all targets takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from bench_llama_cpp import build_ours
from make_random_model import SHAPES, write_model
from slmc.backends.tvm.library import build_library
from slmc.backends.tvm.link import library_name
from slmc.backends.tvm.weights import WeightsReader
from slmc.models.compiled import WEIGHTS, read_compiled
from slmc.runners.native_engine import NativeEngine
from slmc.target import load_target, target_names

CONTEXTS = (128, 512, 1024, 2048, 4096)
PROMPTS = (128, 256, 512, 1024, 2048)
DECODED, ROUNDS = 16, 5


def decode_ms(engine: NativeEngine, context: int) -> float:
    """Of one token after a context that is there already."""
    engine.rewind(context)
    start = time.perf_counter()
    for token in range(DECODED):
        engine.extend([token])
    return (time.perf_counter() - start) * 1000 / DECODED


def prefill_ms(engine: NativeEngine, count: int) -> float:
    """Of one token of a prompt."""
    engine.rewind(0)
    ids = [(7919 * index + 13) % engine.vocab_size for index in range(count)]
    start = time.perf_counter()
    engine.extend(ids)
    return (time.perf_counter() - start) * 1000 / count


def growth(artifact: Path, threads: int) -> dict[str, dict[int, float]]:
    engine = NativeEngine(artifact, threads, verify=False)
    prefill: dict[int, list[float]] = {count: [] for count in PROMPTS}
    decode: dict[int, list[float]] = {count: [] for count in CONTEXTS}
    for _ in range(ROUNDS):
        for count in PROMPTS:
            prefill[count].append(prefill_ms(engine, count))
    prefill_ms(engine, max(CONTEXTS) + DECODED)
    for _ in range(ROUNDS):
        for context in reversed(CONTEXTS):  # what is rewound need not be read again
            decode[context].append(decode_ms(engine, context))
        prefill_ms(engine, max(CONTEXTS) + DECODED)
    return {
        "prefill, ms a token": {count: statistics.median(values) for count, values in prefill.items()},
        "decode, ms a token": {count: statistics.median(values) for count, values in decode.items()},
    }


def bandwidth(path: Path) -> float:
    """Bytes a second, the best of some sums over a mapped file by one thread."""
    mapped = np.memmap(path, np.uint8, mode="r")
    mapped = mapped[: len(mapped) // 64 * 64]
    best = 0.0
    for dtype in (np.uint64, np.float32):
        values = mapped.view(dtype)
        for _ in range(4):
            start = time.perf_counter()
            np.bitwise_or.reduce(values) if dtype is np.uint64 else float(np.max(values))
            best = max(best, mapped.nbytes / (time.perf_counter() - start))
    return best


def opened(artifact: Path, threads: int) -> dict[str, float]:
    """In a process of its own: milliseconds to open, and megabytes that are resident after some work."""
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    engine = NativeEngine(artifact, threads, verify=False)
    milliseconds = (time.perf_counter() - start) * 1000
    engine.extend(list(range(512)))
    engine.extend([1])
    rss = psutil.Process().memory_info().rss - before
    return {"open, ms": milliseconds, "resident, MB": rss / 1e6}


def weights_read(artifact: Path) -> int:
    """Bytes that one token reads: all but the embedding where the head has its own, and the rope tables."""
    file = WeightsReader(artifact / WEIGHTS)
    names = [name for name in file.tensors if not name.startswith("ropes.")]
    unread = {"embedding"} if "head" in file.tensors else set()
    return sum(file.tensors[name].size(file.config.group) for name in names if name not in unread)


def libraries() -> dict[str, float]:
    """Stripped size by triple, and CPU-seconds for all of them, nothing in any cache."""
    triples = [build.triple for name in target_names() for build in load_target(name).native]
    sizes = {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with TemporaryDirectory() as folder:
        for triple in dict.fromkeys(triples):
            path = Path(folder) / library_name(triple)
            path.unlink(missing_ok=True)
            build_library(triple, path)
            sizes[triple] = path.stat().st_size / 1e6
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"all of them, CPU-seconds": spent} | {f"{name}, MB": size for name, size in sizes.items()}


def bench(options: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").is_dir():
        write_model(folder / "base", options.shape)
    artifact = build_ours(folder / "base", folder)
    grown = growth(artifact, options.threads)
    decode = grown["decode, ms a token"]
    read, reachable = weights_read(artifact), bandwidth(artifact / WEIGHTS)
    command = [sys.executable, __file__, "--opened", str(artifact), "--threads", str(options.threads)]
    alone = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    file = WeightsReader(artifact / WEIGHTS)
    c = file.config
    cache = 2 * len(file.layers) * c.kv_heads * c.head_dim * 513 * 2
    facts: dict[str, float] = {
        "decode at the longest context to the shortest": decode[max(CONTEXTS)] / decode[min(CONTEXTS)],
        "read bandwidth of one thread, GB/s": reachable / 1e9,
        "of it reached by decoding": read / (decode[min(CONTEXTS)] / 1000) / reachable,
        **alone,
        "weights and cache of these tokens, MB": (file.path.stat().st_size + cache) / 1e6,
        **libraries(),
    }
    show(options, grown, facts, ", ".join(read_compiled(artifact).libraries[0].kernels))
    if options.plot:
        plot(grown, options.plot)
    if options.json:
        options.json.write_text(json.dumps({"shape": options.shape, "growth": grown, **facts}, indent=2) + "\n")


def show(
    options: argparse.Namespace, grown: dict[str, dict[int, float]], facts: dict[str, float], kernels: str
) -> None:
    console = Console()
    for name, values in grown.items():
        table = Table(title=f"{options.shape}, {options.threads} thread(s): {name}")
        for count in values:
            table.add_column(f"{count:,}", justify="right")
        table.add_row(*(f"{value:.2f}" for value in values.values()))
        console.print(table)
    table = Table("", "", show_header=False, caption=f"kernels in the library: {kernels}")
    for name, value in facts.items():
        table.add_row(name, f"{value:.3g}" if value < 1000 else f"{value:,.0f}")
    console.print(table)


def plot(grown: dict[str, dict[int, float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(grown), figsize=(9, 3.2), layout="constrained")
    for axis, (name, values) in zip(axes, grown.items(), strict=True):
        axis.plot(list(values), list(values.values()), marker="o")
        axis.set(title=name, xlabel="tokens before" if name.startswith("decode") else "tokens of the prompt", ylim=0)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the model is made, and found again the next time")
    parser.add_argument("--plot", type=Path, help="draw both curves")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        print(json.dumps(opened(options.opened, options.threads)))
    elif options.folder:
        bench(options, options.folder / options.shape)
    else:
        with TemporaryDirectory() as folder:
            bench(options, Path(folder))


if __name__ == "__main__":
    main()
