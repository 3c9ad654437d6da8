#!/usr/bin/env python3
"""What merging and quantizing a model of a well-known shape costs: seconds, CPU-seconds, peak memory.

    scripts/bench-quantize [--shape llama-3.2-1b] [--methods rtn,gptq] [--items 128] [--tokens 256] [--folder KEEP]

Makes a model and an adapter with random weights, and random calibration texts of the length asked for. Merging
and each method run in a process of their own, whose own accounting by the operating system is what is printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from rich.console import Console
from rich.table import Table

from make_random_model import SHAPES, write_adapter, write_model
from slmc.artifacts import MergedCheckpoint
from slmc.pipeline import merge_stage
from slmc.plan import Plan, resolve
from slmc.prompt import Codec, compile_prompt
from slmc.quantization import quantize_stage
from slmc.recipe import load_recipe
from slmc.store import Store
from slmc.target import load_target

SEED = 64
TEMPLATE_TOKENS = 4  # user, end, assistant, and the answer's own end
ANSWER = "answer"


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def write_recipe(folder: Path, shape: str, items: int, tokens: int) -> None:
    """A recipe around a random model; one byte is one token."""
    write_model(folder / "base", shape)
    write_adapter(folder / "base", folder / "adapter")
    drawn = random.Random(SEED)
    letters = "abcdefghijklmnopqrstuvwxyz "
    length = tokens - TEMPLATE_TOKENS - len(ANSWER)
    texts = ["".join(drawn.choices(letters, k=length)) for _ in range(items)]
    lines = [json.dumps({"id": str(i), "text": text, "answer": ANSWER}) for i, text in enumerate(texts)]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    recipe = {
        "name": "random",
        "version": "1",
        "base": {"path": "base"},
        "adapter": {"path": "adapter"},
        "prompt": {"kind": "chat"},
        "task": {"kind": "generate"},
        "data": {"evaluation": "items.jsonl", "calibration": "items.jsonl", "credit": "drawn at random"},
        "context": tokens,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def settled(recipe: Path, method: str) -> Plan:
    loaded = load_recipe(recipe)
    quantization = loaded.recipe.quantization.model_copy(update={"method": method})
    changed = loaded.recipe.model_copy(update={"quantization": quantization})
    return resolve(type(loaded)(recipe, changed), load_target("host"))


def run_merge(recipe: Path, store: Store) -> tuple[Plan, MergedCheckpoint]:
    plan = settled(recipe, "rtn")
    return plan, merge_stage(plan, store)


def run_method(recipe: Path, store: Store, method: str) -> None:
    plan = settled(recipe, method)
    merged = merge_stage(plan, store)
    codec: Codec = compile_prompt(plan.recipe, merged.folder, ())
    quantize_stage(plan, store, merged, codec)


def measured(run: Callable[..., object], *arguments: object) -> Cost:
    """In a process of its own, so that its peak is its own."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_child, args=(results, run, arguments))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{run.__name__}{arguments} ended with {process.exitcode}")
    cost: Cost = results.get()
    return cost


def _child(
    results: multiprocessing.SimpleQueue[Cost], run: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    begun = time.monotonic()
    run(*arguments)
    seconds = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    results.put(Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024))


def bench(options: argparse.Namespace, folder: Path) -> dict[str, Cost]:
    recipe, store = folder / "recipe", Store(folder / "store")
    if not recipe.exists():
        write_recipe(recipe, options.shape, options.items, options.tokens)
    costs = {"merge": measured(run_merge, recipe, store)}
    for method in options.methods.split(","):
        costs[method] = measured(run_method, recipe, store, method)
        Console(stderr=True).print(f"{method}: {costs[method]}")
    return costs


def show(options: argparse.Namespace, costs: dict[str, Cost]) -> None:
    title = f"{options.shape}, {options.items} items of {options.tokens} tokens"
    table = Table("", "seconds", "CPU-seconds", "peak memory, GB", title=title)
    for name, cost in costs.items():
        table.add_row(name, f"{cost.seconds:.0f}", f"{cost.cpu_seconds:.0f}", f"{cost.peak_bytes / 1e9:.2f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--methods", default="rtn,gptq", help="separated by commas")
    parser.add_argument("--items", type=int, default=128, help="calibration items")
    parser.add_argument("--tokens", type=int, default=256, help="of each item")
    parser.add_argument("--folder", type=Path, help="keep model and results here; what is there is not made again")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        show(options, bench(options, options.folder or Path(temporary)))


if __name__ == "__main__":
    main()
