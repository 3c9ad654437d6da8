#!/usr/bin/env python3
"""Milliseconds a decision, ours against llama.cpp's on this machine: an item's text in, its label out.

    scripts/bench-decisions [--case demo|llama-3.2-1b] [--rounds 5] [--items N] [--folder KEEP] [--json FILE]

"demo" is recipes/intent-router, built as an app gets it; llama.cpp has the merged checkpoint with every matrix in
Q4_0. "llama-3.2-1b" has random weights of that shape, a prompt whose first 300 tokens never change, about 40 tokens of
text, and 100 labels of 3 to 6 tokens. Random weights know nothing, so that all labels are about equally likely: "flat",
the worst case for our search, which is exact and looks behind every label that could still win. A model that knows its
task is sure of most items: in "peaked" the last norm of the same model, on both sides, is multiplied by 32. A random
model makes much of how its weights were rounded, so that the two often say other labels; the demo's must agree.

llama.cpp is asked as well as its interface allows: what a prompt shares with the one before stays in its KV cache, the
rest is read in one batch; the grammar has the labels' tokens, common beginnings once; the likeliest token of all is
tried first, and the grammar applied to the whole vocabulary only where it refuses that one (--sampler chain: always);
an answer ends with the end token. Its choice is greedy, token by token; ours is the likeliest label.

Counted is all from text to label: tokenization, prefill, decoding, sampling, text from tokens, as time inside of either
library's functions; what Python adds around them is told too. Each round runs both, one after the other, each in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.table import Table

from bench_tokenizers import train_large
from llama_cpp_decider import CLOCKS, CODEC, GGUF, Peer, write_worded_gguf
from make_random_model import ASSISTANT, END, SYSTEM, USER, write_model
from slmc.backends.tvm.tools import check_tools
from slmc.bundle.golden import evenly
from slmc.models.compiled import WEIGHTS
from slmc.pipeline import build, merge_stage
from slmc.plan import Options, resolve
from slmc.prompt import TOKENIZER_FILE, Codec, PromptFormat
from slmc.recipe import load_recipe
from slmc.runners.native_decider import NativeDecider
from slmc.runners.native_engine import NativeEngine
from slmc.store import Store
from slmc.target import load_target
from slmc.text.task import TASK_FILE, Task, write_task

DEMO = Path(__file__).resolve().parent.parent / "recipes" / "intent-router"
SHAPE = "llama-3.2-1b"
OURS, THEIRS = "slmc", "llama.cpp"
SHARPNESS = {"peaked": 32, "flat": 1}
PREFIX_TOKENS, TEXT_TOKENS, LABELS, LABEL_TOKENS = 300, 40, 100, range(3, 7)
VOCABULARY = 32000
SEED = 32
WARM_UPS = 3
ARTIFACT, ITEMS = "artifact", "items.json"
Items = list[dict[str, str]]
"""Each with its "text", and its "label" where one is known."""
Measured = dict[str, Any]
"""What a process found: "items", each with its choice, milliseconds by step and so on; and facts about them all."""
Facts = dict[str, Any]
THEIR_STEPS = ("encode", "prefill", "decode", "sample", "spell")
COUNTS = {
    "tokens": "mean tokens of the prompt read",
    "decoded": "mean tokens of labels read",
    "steps": "mean calls of the model for them",
}
# ---- What is measured ----------------------------------------------------------------------------------------------


def make_demo(folder: Path) -> None:
    recipe = load_recipe(DEMO)
    plan = resolve(recipe, load_target("host"), Options(validate=False))
    store = Store(folder / "store")
    built, merged = build(plan, store, folder / "dist"), merge_stage(plan, store)
    for name, made in ((ARTIFACT, "model"), (CODEC, "tokenizer")):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(built.bundle / made, folder / name)
    examples = recipe.examples(recipe.recipe.data.evaluation)
    items = [{**example.fields, "label": example.answer} for example in examples]
    write_items(folder, recipe.labels(), items)
    write_worded_gguf(merged.folder, folder)


def make_random(folder: Path, sharpness: int) -> None:
    from bench_llama_cpp import build_ours  # imports the compiler, which takes seconds

    base = folder / "base"
    if not (folder / "quantized").is_dir():
        shutil.rmtree(base, ignore_errors=True)
        write_model(base, SHAPE)
        sharpen(base, sharpness)
    assert build_ours(base, folder) == folder / ARTIFACT
    if not (folder / ITEMS).is_file():
        make_questions(folder)
    if not (folder / GGUF).is_file():
        write_worded_gguf(base, folder)


def sharpen(checkpoint: Path, factor: int) -> None:
    """Multiply the last norm, and so every logit; a power of two is exact."""
    name, path = "model.norm.weight", checkpoint / "model.safetensors"
    size = int.from_bytes(path.open("rb").read(8), "little")
    with path.open("rb") as file:
        file.seek(8)
        begin, end = json.loads(file.read(size))[name]["data_offsets"]
    norm = np.memmap(path, ml_dtypes.bfloat16, "r+", 8 + size + begin, ((end - begin) // 2,))
    norm *= ml_dtypes.bfloat16(factor)
    norm.flush()


def make_questions(folder: Path) -> None:
    """A tokenizer, a prompt, labels and texts; words are the demo's."""
    tokenizer = train_large(VOCABULARY, (END, SYSTEM, USER, ASSISTANT))
    random_words = random.Random(SEED)
    sentences = (DEMO / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in sentences for word in re.findall("[a-z]{3,}", json.loads(line)["text"])})

    def text_of(count: int, around: Callable[[str], str]) -> str:
        made: list[str] = []
        while len(tokenizer.encode(around(" ".join(made))).ids) < count:
            made.append(random_words.choice(words))
        return " ".join(made)

    prefix = f"{SYSTEM}{text_of(PREFIX_TOKENS - 1, lambda text: f'{SYSTEM}{text}{END}{USER}')}{END}{USER}"
    form = PromptFormat(
        prefix=prefix,
        message="{text}",
        suffix=f"{END}{ASSISTANT}",
        trim=True,
        answer_prefix="",
        special_tokens=False,
        end_token=END,
        end_id=int(tokenizer.token_to_id(END) or 0),
    )
    shutil.rmtree(folder / CODEC, ignore_errors=True)
    Codec(tokenizer, form).save(folder / CODEC)
    labels: dict[str, None] = {}
    first_words = random_words.sample(words, LABELS // 4)  # so that labels share beginnings, as a real task's do
    while len(labels) < LABELS:
        label = "_".join([random_words.choice(first_words), *random_words.sample(words, random_words.randrange(1, 3))])
        if len(tokenizer.encode(label).ids) in LABEL_TOKENS:
            labels[label] = None
    write_items(folder, list(labels), [{"text": text_of(TEXT_TOKENS, str)} for _ in range(100)])


def write_items(folder: Path, labels: Sequence[str], items: Items) -> None:
    (folder / ITEMS).write_text(json.dumps({"labels": labels, "items": items}))
    examples = [{"text": item["text"]} for item in items]
    codec = Codec.open(folder / CODEC)
    write_task(Task(folder / CODEC / TOKENIZER_FILE, codec, labels, examples), folder / TASK_FILE)


def read_items(folder: Path) -> tuple[list[str], Items]:
    """A case's labels, and its items."""
    stored = json.loads((folder / ITEMS).read_text())
    return stored["labels"], stored["items"]


# ---- Measuring, in a process of its own ----------------------------------------------------------------------------


def run_ours(folder: Path, items: Items, options: argparse.Namespace) -> Measured:
    decider = NativeDecider(folder / ARTIFACT, folder / TASK_FILE, threads=options.threads)
    clock = CLOCKS[options.clock]
    for item in items[:WARM_UPS]:
        decider.classify(item)
    found = []
    for item in items:
        start = clock()
        decision = decider.classify(item)
        took = (clock() - start) * 1e3
        steps = {"encode": decision.encode_ms, "prefill": decision.prefill_ms, "decode": decision.decode_ms}
        inside = min(took, sum(steps.values()))  # the steps are by the wall's clock
        counts = (decision.prefill_tokens, decision.decode_tokens, decision.decode_steps)
        found.append(
            {"choice": decision.choice, "ids": decision.prompt_ids, "ms": inside, "with Python": took}
            | {step: ms * inside / sum(steps.values()) for step, ms in steps.items()}
            | dict(zip(COUNTS, counts, strict=True))
        )
    return {"items": found, "head_rows": decider.head_rows, "kernels": NativeEngine(folder / ARTIFACT).kernels}


def run_theirs(folder: Path, items: Items, options: argparse.Namespace) -> Measured:
    peer, clock = Peer(folder, read_items(folder)[0], options), CLOCKS[options.clock]
    for item in items[:WARM_UPS]:
        peer.classify(item)
    found = []
    for item in items:
        start = clock()
        answer = peer.classify(item)
        found.append({**answer, "ms": sum(peer.times.values()), "with Python": (clock() - start) * 1e3})
    return {"items": found}


def in_own_process(name: str, folder: Path, chosen: Sequence[int], options: argparse.Namespace) -> Measured:
    command = [sys.executable, __file__, "--run", name, "--folder", folder, "--threads", str(options.threads)]
    command += ["--sampler", options.sampler, "--clock", options.clock]
    done = subprocess.run(
        list(map(str, command)), input=json.dumps(list(chosen)), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


# ---- What came out -------------------------------------------------------------------------------------------------


def of(measured: Measured, key: str) -> list[Any]:
    return [item[key] for item in measured["items"]]


def middle(measured: Measured, key: str) -> float:
    return float(statistics.median(of(measured, key)))


def agreement(ours: Measured, theirs: Measured, expected: Sequence[str | None], labels: Sequence[str]) -> Facts:
    """How often both say the same, and what is right where that is known."""
    found = {OURS: of(ours, "choice"), THEIRS: of(theirs, "choice")}
    facts: Facts = {
        "items": len(expected),
        "same label": sum(a == b for a, b in zip(*found.values(), strict=True)),
        "same prompt ids": sum(a == b for a, b in zip(of(ours, "ids"), of(theirs, "ids"), strict=True)),
    }
    if all(expected):
        for name, choices in found.items():
            right = sum(labels[choice] == label for choice, label in zip(choices, expected, strict=True))
            facts[f"accuracy of {name}"] = right / len(expected)
    return facts


def summarize(rounds: Sequence[tuple[Measured, Measured]]) -> Facts:
    """Medians over the rounds of each round's median; of the ratios also the lowest and the highest."""
    ours, theirs = zip(*rounds, strict=True)
    keys = ("ms", *THEIR_STEPS, "with Python", *COUNTS)
    return {
        OURS: {key: statistics.median(middle(one, key) for one in ours) for key in keys if key in ours[0]["items"][0]},
        THEIRS: {key: statistics.median(middle(one, key) for one in theirs) for key in keys},
        "means": {name: {key: mean(side, key) for key in COUNTS} for name, side in ((OURS, ours), (THEIRS, theirs))},
        "p95 ms": {OURS: p95(ours), THEIRS: p95(theirs)},
        "ratio": spread([middle(one, "ms") / middle(other, "ms") for one, other in rounds]),
        "ratio with Python around ours alone": spread(
            [middle(one, "with Python") / middle(other, "ms") for one, other in rounds]
        ),
        "encode share": statistics.median(item["encode"] / item["ms"] for one in ours for item in one["items"]),
    }


def spread(values: Sequence[float]) -> Facts:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def mean(runs: Sequence[Measured], key: str) -> float:
    return statistics.fmean(value for run in runs for value in of(run, key))


def p95(runs: Sequence[Measured]) -> float:
    return float(np.percentile([ms for run in runs for ms in of(run, "ms")], 95))


def rounds_of(folder: Path, options: argparse.Namespace) -> Iterator[tuple[Measured, Measured]]:
    """Both on the same items, others in each round; they take turns at being first."""
    count = len(read_items(folder)[1])
    for number in range(options.rounds):
        chosen = evenly([(index + 7 * number) % count for index in range(count)], options.items)
        names = (OURS, THEIRS) if number % 2 == 0 else (THEIRS, OURS)
        found = {name: in_own_process(name, folder, chosen, options) for name in names}
        told = ", ".join(f"{name} {middle(found[name], 'ms'):.3f} ms" for name in names)
        print(f"round {number + 1}: {told}", file=sys.stderr)
        yield found[OURS], found[THEIRS]


def bench(title: str, folder: Path, options: argparse.Namespace) -> Facts:
    import llama_cpp

    labels, items = read_items(folder)
    rounds = list(rounds_of(folder, options))
    if options.case == "demo":
        print("all items once, for the accuracy", file=sys.stderr)
        asked = range(len(items))
        once = [in_own_process(name, folder, asked, options) for name in (OURS, THEIRS)]
        expected = [item.get("label") for item in items]
    else:
        once = [{"items": [item for one in side for item in one["items"]]} for side in zip(*rounds, strict=True)]
        expected = [None] * len(once[0]["items"])
    kept, every = rounds[0][0]["head_rows"]
    facts: Facts = {
        "threads": options.threads,
        "clock": options.clock,
        "labels": len(labels),
        "head rows read": f"{kept} of {every}",
        **agreement(once[0], once[1], expected, labels),
        "llama_cpp_python": llama_cpp.__version__,
        "llama_cpp_system": llama_cpp.llama_print_system_info().decode().strip(" |"),
        "llama.cpp sampler": options.sampler,
        "slmc_kernels": rounds[0][0]["kernels"],
        "slmc_bytes": (folder / ARTIFACT / WEIGHTS).stat().st_size,
        "gguf_bytes": (folder / GGUF).stat().st_size,
    }
    summary = summarize(rounds)
    show(title, summary, facts, options)
    return {"title": title, **facts, "summary": summary}


def show(title: str, summary: Facts, facts: Facts, options: argparse.Namespace) -> None:
    notes = [
        *(_told(name, summary[name]) for name in ("ratio", "ratio with Python around ours alone")),
        f"encoding is {summary['encode share']:.2%} of our decision",
        *(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}" for key, value in facts.items()),
    ]
    heading = f"{title}: {options.rounds} rounds of {options.items} decisions in alternation, medians"
    table = Table()
    table.add_column("")
    table.add_column(OURS, justify="right")
    table.add_column(THEIRS, justify="right")
    names = {"ms": "ms a decision", "with Python": "with Python around"} | {step: f"  {step}" for step in THEIR_STEPS}
    for key in ("ms", *THEIR_STEPS, "with Python"):
        table.add_row(names[key], *(_cell(summary[side].get(key)) for side in (OURS, THEIRS)))
    table.add_row("95th percentile", *(_cell(summary["p95 ms"][side]) for side in (OURS, THEIRS)))
    for key in COUNTS:
        table.add_row(COUNTS[key], *(f"{summary['means'][side][key]:.1f}" for side in (OURS, THEIRS)))
    for part in (heading, table, *notes):
        Console(highlight=False).print(part, soft_wrap=True)


def _told(name: str, found: Facts) -> str:
    times = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
    return f"{name}: {times}: 1/{1 / found['median']:.1f} of {THEIRS}'s time"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


# ---- The command ---------------------------------------------------------------------------------------------------


def made_cases(folder: Path, case: str) -> Iterator[tuple[str, Path]]:
    check_tools()
    kinds: dict[str, int] = {"": 1} if case == "demo" else SHARPNESS
    for kind, sharpness in kinds.items():
        made = folder / case / kind
        made.mkdir(parents=True, exist_ok=True)
        if case == "demo":
            make_demo(made)
        else:
            make_random(made, sharpness)
        yield f"{case} {kind}".strip(), made


def run(options: argparse.Namespace) -> None:
    """One side, on the items whose numbers come in."""
    every = read_items(options.folder)[1]
    items = [{"text": every[index]["text"]} for index in json.load(sys.stdin)]
    print(json.dumps((run_ours if options.run == OURS else run_theirs)(options.folder, items, options)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds a decision, ours against llama.cpp's.")
    parser.add_argument("--case", choices=("demo", SHAPE), default="demo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, help="in each round; 300, or 8 of the large model")
    parser.add_argument("--sampler", choices=("first-free", "chain"), default="first-free", help="of llama.cpp")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: the thread's own time, on a busy machine")
    parser.add_argument("--folder", type=Path, help="where the models are made, and found again the next time")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--run", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options)
        return
    options.items = options.items or (300 if options.case == "demo" else 8)
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        found = [bench(title, made, options) for title, made in made_cases(folder, options.case)]
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
