#!/usr/bin/env python3
"""Noise of nights on which nothing changed, measured on this machine: tests/data/noise.json.

    python scripts/record_noise.py [--nights 150] [--pause 8] [--folder KEEP] [--out tests/data/noise.json]

The demo's bundle is its own control, so that every difference is noise. A night is a process of its own that opens the
model twice and asks both every item in turn, now the one first, now the other; a round's ratio is the median of its
items'. Each night asks with one thread and with two. The machine is as busy as it is, and at other times otherwise:
nights have pauses between them.

How near the model is to another answer is recorded too: of every item whose two likeliest labels are less than NEAR
nats apart, the margin, and which of the two is right. A runtime that doesn't compute the same twice flips such items.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slmc.recipe import load_recipe
from slmc.runners.native_decider import NativeDecider
from slmc.text.task import TASK_FILE

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "recipes" / "intent-router"
THREADS = (1, 2)
ROUNDS, ITEMS, WARM_UPS = 11, 50, 5
NEAR = 1.0
Night = dict[str, Any]


def make(folder: Path) -> Path:
    """The demo's bundle for this machine."""
    from slmc.pipeline import build  # takes seconds, which a night need not wait for
    from slmc.plan import Options, resolve
    from slmc.store import Store
    from slmc.target import load_target

    plan = resolve(load_recipe(DEMO), load_target("host"), Options(validate=False))
    return build(plan, Store(folder / "store"), folder / "dist").bundle


def opened(bundle: Path, threads: int) -> NativeDecider:
    return NativeDecider(bundle / "model", bundle / TASK_FILE, threads=threads)


def examples() -> list[tuple[dict[str, str], str]]:
    recipe = load_recipe(DEMO)
    found = recipe.examples(recipe.recipe.data.evaluation)
    return [(dict(example.fields), str(example.answer)) for example in found]


def ask(bundle: Path, number: int, threads: int) -> Night:
    """One night, in this process."""
    begun = time.perf_counter()
    sides = [opened(bundle, threads)]
    load_ms = (time.perf_counter() - begun) * 1e3
    sides.append(opened(bundle, threads))
    every = [fields for fields, _ in examples()]
    for side in sides:
        for item in every[:WARM_UPS]:
            side.classify(item)
    ratios, control = [], []
    for turn in range(ROUNDS):
        items = [every[(number * 977 + turn * ITEMS + i) % len(every)] for i in range(ITEMS)]
        pairs = [both(sides, item, index % 2) for index, item in enumerate(items)]
        ratios.append(round(statistics.median(ours / theirs for ours, theirs in pairs), 5))
        control += [theirs for _, theirs in pairs]
    return {"ratios": ratios, "ms": round(statistics.median(control), 4), "load_ms": round(load_ms, 2)}


def both(sides: Sequence[NativeDecider], item: dict[str, str], first: int) -> tuple[float, float]:
    """Milliseconds of either side."""
    times = [0.0, 0.0]
    for which in (first, 1 - first):
        times[which] = timed(sides[which], item)
    return times[0], times[1]


def timed(decider: NativeDecider, item: dict[str, str]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    decider.classify(item)
    return (time.perf_counter() - begun) * 1e3


def answers(bundle: Path) -> dict[str, Any]:
    """Every item once: how many were right, and those that another answer is near to."""
    decider = opened(bundle, 1)
    right, near = [], []
    for index, (fields, label) in enumerate(examples()):
        found = decider.classify(fields)
        said = decider.labels[found.choice] == label
        right.append(said)
        others = [(p, choice) for choice, p in found.logprobs.items() if choice != found.choice and math.isfinite(p)]
        if not others:
            continue
        logprob, second = max(others)
        margin = found.logprobs[found.choice] - logprob
        if margin < NEAR and (said or decider.labels[second] == label):
            near.append([index, int(said), round(margin, 4)])
    return {"items": len(right), "right": sum(right), "near": near}


def measure(bundle: Path, number: int, threads: int) -> Night:
    command = [sys.executable, __file__, "--ask", str(bundle), "--number", str(number), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    night: Night = json.loads(done.stdout)
    return {**night, "load": round(os.getloadavg()[0], 2)}


def record(bundle: Path, nights: int, pause_s: float, out: Path) -> None:
    """Written anew after each night, so that one can stop before the last."""
    found: dict[int, list[Night]] = {threads: [] for threads in THREADS}
    facts = {
        "what": "scripts/record_noise.py: the demo's bundle against itself",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "rounds": ROUNDS,
        "items": ITEMS,
        "answers": answers(bundle),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for number in range(nights):
        for threads in THREADS:
            found[threads].append(measure(bundle, number, threads))
        print(f"night {number + 1} of {nights}: {tell(found, number)}", file=sys.stderr)
        made = {**facts, "threads": {str(threads): series for threads, series in found.items()}}
        out.write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8")
        time.sleep(pause_s)


def tell(found: dict[int, Sequence[Night]], number: int) -> str:
    return ", ".join(f"{statistics.median(series[number]['ratios']):.4f}" for series in found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Noise of nights on which nothing changed.")
    parser.add_argument("--nights", type=int, default=150)
    parser.add_argument("--pause", type=float, default=8, help="seconds between nights")
    parser.add_argument("--folder", type=Path, help="where the demo is built, and found again the next time")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "data" / "noise.json")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask(options.ask, options.number, options.threads)))
        return
    with TemporaryDirectory() as temporary:
        record(make(options.folder or Path(temporary)), options.nights, options.pause, options.out)


if __name__ == "__main__":
    main()
