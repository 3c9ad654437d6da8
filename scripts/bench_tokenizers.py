#!/usr/bin/env python3
"""Speed of our encoder in C against Hugging Face's tokenizers, text to ids, on one thread.

    scripts/bench-tokenizers [--only KIND ...] [--seconds 0.3] [--json FILE]

Every kind of tokenizer that a decoder family has (tests/tokenizer_kinds.py), the demo's, and one with 48,000
tokens, trained on Python's own library. Two texts: the demo's evaluation sentences, a line each; and README.md
with sentences in many scripts, in lines of some hundred characters. Ours is timed inside a small C program, theirs
around each call of encode, and of encode_batch with all lines.

Theirs remembers the words that it met, ours remembers nothing. "cold" is one pass over the lines with a tokenizer that
was just loaded, "warm" the best of many passes; an app's case is between. Times are the process's own, so that a busy
machine does not count. The ids are compared; a line whose ids differ ends the bench.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from slmc.text.sections import write_sections
from slmc.text.tokenizer import compile_tokenizer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.tokenizer_kinds import KINDS, SENTENCES  # noqa: E402

SOURCES = ROOT / "toolchain" / "slmc" / "text" / "native"
DEMO = ROOT / "recipes" / "intent-router"
FAMILIES = ("gpt2", "llama3", "qwen", "smollm", "phi4", "llama2", "gemma", "mistral", "unigram")
LARGE, LARGE_SIZE = "48k", 48000
CORPUS_BYTES = 12_000_000
SEED = 7
OURS, THEIRS = "ours", ("encode, cold", "encode, warm", "batch, cold", "batch, warm")
TEXTS = ("sentences", "mixed")
Speeds = dict[str, float]
"""Megabytes of text a second; with "ms" in the name, milliseconds."""
Row = dict[str, Any]

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "slm_text.h"

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
  return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void tell(const int32_t *ids, size_t count) {
  for (size_t i = 0; i < count; i++)
    fprintf(stderr, "%d ", (int)ids[i]);
  fputc('\n', stderr);
}

/* Encode the lines of a text, pass after pass: seconds of opening the task and of the best pass, and the lines' ids. */
int main(int count, char **arguments) {
  slm_error error;
  slm_task *task;
  slm_encoder *encoder;
  if (count != 4)
    return 2;
  FILE *file = fopen(arguments[2], "rb");
  char *text = malloc(1u << 26);
  if (!file || !text)
    return 3;
  const size_t size = fread(text, 1, 1u << 26, file);
  const double opened = now();
  if (slm_task_open(arguments[1], &task, &error) || slm_encoder_new(task, &encoder, &error))
    return puts(error.text), 4;
  const double begun = now(), limit = atof(arguments[3]);
  double best = 0;
  for (int pass = 0; pass < 3 || now() - begun < limit; pass++) {
    const double start = now();
    for (const char *line = text, *end; line < text + size; line = end + 1) {
      const int32_t *ids;
      size_t found;
      end = memchr(line, '\n', (size_t)(text + size - line));
      if (slm_encode(encoder, (slm_text){line, (size_t)(end - line)}, 0, &ids, &found))
        return 5;
      if (!pass)
        tell(ids, found);
    }
    const double took = now() - start;
    if (pass == 1 || (pass && took < best))
      best = took;
  }
  printf("%.9f %.9f\n", begun - opened, best);
  return 0;
}
"""


# ---- Texts and tokenizers ------------------------------------------------------------------------------------------


def evaluation_lines() -> list[str]:
    lines = (DEMO / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def mixed_lines() -> list[str]:
    """README.md, and words of many scripts at random: lines of some hundred characters."""
    drawn = random.Random(SEED)
    words = [word for sentence in SENTENCES for word in sentence.split()]
    many = [" ".join(drawn.choices(words, k=drawn.randrange(20, 80))) for _ in range(150)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    return [line.replace("\n", " ") for line in (*readme, *many) if line]


def library_text() -> Iterator[str]:
    """Python's own sources, in their names' order, with the demo's sentences."""
    yield from evaluation_lines()
    size = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*/*.py")):
        if "site-packages" in path.parts:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        size += len(text)
        yield text
        if size > CORPUS_BYTES:
            return


def train_large(size: int, special: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE that cuts as GPT-2 does; the special tokens are the first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    tokenizer.train_from_iterator(library_text(), trainer)
    return tokenizer


def makers() -> Mapping[str, Callable[[], Tokenizer]]:
    made: dict[str, Callable[[], Tokenizer]] = {name: KINDS[name] for name in FAMILIES}
    made["demo"] = lambda: Tokenizer.from_file(str(DEMO / "base" / "tokenizer.json"))
    made[LARGE] = lambda: train_large(LARGE_SIZE)
    return made


# ---- Measuring -----------------------------------------------------------------------------------------------------


def build_driver(folder: Path) -> Path:
    source, program = folder / "driver.c", folder / "driver"
    source.write_text(DRIVER)
    flags = ["-std=c11", "-O2", "-D_DEFAULT_SOURCE", "-DSLM_CODE=1", f"-I{SOURCES}"]
    files = [source, *sorted(SOURCES.glob("*.c"))]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags, *files, "-lm", "-o", program], check=True)
    return program


def measure_ours(driver: Path, task: Path, text: Path, seconds: float) -> tuple[Speeds, list[list[int]]]:
    done = subprocess.run([driver, task, text, str(seconds)], capture_output=True, text=True, check=True)
    opening, best = map(float, done.stdout.split())
    ids = [[int(id) for id in line.split()] for line in done.stderr.splitlines()]
    return {"ours opens in ms": opening * 1e3, OURS: text.stat().st_size / 1e6 / best}, ids


def measure_theirs(path: Path, text: Path, seconds: float) -> tuple[Speeds, list[list[int]]]:
    lines, size = text.read_text(encoding="utf-8").split("\n")[:-1], text.stat().st_size / 1e6
    speeds = {}
    for name in ("encode", "batch"):
        start = time.process_time()
        tokenizer = Tokenizer.from_file(str(path))
        speeds["theirs opens in ms"] = (time.process_time() - start) * 1e3

        def pass_over(tokenizer: Tokenizer = tokenizer, name: str = name) -> None:
            if name == "batch":
                tokenizer.encode_batch(lines, add_special_tokens=False)
                return
            for line in lines:
                tokenizer.encode(line, add_special_tokens=False)

        speeds[f"{name}, cold"] = size / once(pass_over)
        speeds[f"{name}, warm"] = size / best_of(pass_over, seconds)
    return speeds, [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]


def once(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def best_of(work: Callable[[], object], seconds: float) -> float:
    times = [once(work)]
    while sum(times) < seconds:
        times.append(once(work))
    return min(times)


def measure(name: str, tokenizer: Tokenizer, folder: Path, driver: Path, seconds: float) -> Iterator[Row]:
    """A row for each text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    path, task = folder / f"{name}.json", folder / f"{name}.slm"
    tokenizer.save(str(path))
    write_sections(compile_tokenizer(path), task)
    for title in TEXTS:
        text = folder / f"{title}.txt"
        ours, our_ids = measure_ours(driver, task, text, seconds)
        theirs, their_ids = measure_theirs(path, text, seconds)
        if our_ids != their_ids:
            different = next(i for i, (a, b) in enumerate(zip(our_ids, their_ids, strict=True)) if a != b)
            raise SystemExit(f"{name}: line {different} of {title} has other ids")
        facts = {"tokenizer": name, "vocabulary": tokenizer.get_vocab_size(), "text": title}
        yield {**facts, "ids": sum(map(len, our_ids)), **ours, **theirs}


def show(rows: Sequence[Row], caption: str) -> None:
    table = Table(title="MB of text a second, one thread")
    for column in ("tokenizer", "tokens", "text", OURS, *THEIRS):
        table.add_column(column, justify="left" if column in ("tokenizer", "text") else "right")
    for row in rows:
        ratios = (f"{row[column]:.2f} [dim]x{row[OURS] / row[column]:.1f}[/]" for column in THEIRS)
        table.add_row(row["tokenizer"], f"{row['vocabulary']:,}", row["text"], f"{row[OURS]:.1f}", *ratios)
    Console().print(table)
    Console(highlight=False).print(caption, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of our encoder against Hugging Face's tokenizers.")
    parser.add_argument("--only", nargs="+", choices=(*FAMILIES, "demo", LARGE), metavar="KIND")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each figure")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    rows: list[Row] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        driver = build_driver(folder)
        for title, lines in zip(TEXTS, (evaluation_lines(), mixed_lines()), strict=True):
            (folder / f"{title}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for kind, make in makers().items():
            if not options.only or kind in options.only:
                rows += measure(kind, make(), folder, driver, options.seconds)
                print(f"{kind} done", file=sys.stderr)
    caption = (
        f"tokenizers {tokenizers.__version__}; x: how many times as fast ours is. Theirs remembers words that it met: "
        "cold is a pass with a fresh one, warm the best of many passes. Ours remembers nothing: the best of many."
    )
    show(rows, caption)
    if options.json:
        options.json.write_text(json.dumps({"tokenizers": tokenizers.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
