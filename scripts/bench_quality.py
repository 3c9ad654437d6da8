#!/usr/bin/env python3
"""What four bits cost, ours against others' on the same merged checkpoint and the same items.

    scripts/bench-quality RECIPE [--items 1000] [--json FILE] [--markdown FILE]

Each contender's next-token probabilities are held against those of the merged model in float32, at the
tokens of the expected answers of the recipe's evaluation items: Kullback-Leibler divergence over the
whole vocabulary, in nats a token, and how often the likeliest token is the same. An item whose prompt is
also a calibration item's is left out. A ratio of two divergences is that of their sums over the same
items, with a bootstrap interval that draws whole items.

The peers:
- llama.cpp Q4_0 and Q4_K_M: quantized by llama.cpp and run by it, with keys and values in float32. It also
  rounds activations to 8 bits as it runs, so its weights are judged alone as well, in torch. Both presets
  spend 6 bits on the head; "pure" does not.
- group-32 rounding as MLC's q4f16_1 has it: scale max/7 in float16, codes from -7 to 7.
The file that llama.cpp quantizes is first run itself: where it is not the merged model, nothing is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import llama_cpp
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from gguf_export import bits_per_weight, read_gguf, write_gguf
from slmc.architecture import Architecture
from slmc.artifacts import MergedCheckpoint
from slmc.bundle.golden import evenly
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import TensorReader
from slmc.console import err
from slmc.pipeline import merge_stage
from slmc.plan import resolve
from slmc.prompt import Codec, compile_prompt
from slmc.quant.table import read_table
from slmc.quantization import quantize_stage
from slmc.recipe import Example, LoadedRecipe, Quantization, load_recipe
from slmc.runners.torch_model import TorchModel, load
from slmc.store import Store
from slmc.target import load_target
from slmc.validate.statistics import Interval, mean_interval

GROUP = 32
EXPORT_LIMIT = 1e-6
"""Nats a token between the merged model in torch and in llama.cpp, both float32."""
PRESETS = {
    "Q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, False),
    "Q4_0 pure": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True),
    "Q4_K_M": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, False),
}
"""llama.cpp's file type, and whether every matrix is in it."""
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """A prompt with its answer but for the last token, and from where on the next token is an answer's."""

    ids: tuple[int, ...]
    start: int

    @property
    def positions(self) -> int:
        return len(self.ids) - self.start


@dataclass(frozen=True)
class Measured:
    name: str
    bits: float
    """A weight, all tensors together."""
    divergence: NDArray[np.float64]
    """Nats of each question, all its positions together."""
    same: int
    """Positions at which the likeliest token is the reference's."""


class Reference:
    """The merged model's log-probabilities at each question's positions, on disk."""

    def __init__(self, questions: list[Question], logits: Iterable[Logits], vocab_size: int, file: Path) -> None:
        self.questions = questions
        self.counts = [question.positions for question in questions]
        self._ends = np.cumsum(self.counts)
        shape = (int(self._ends[-1]), vocab_size)
        self._logprobs = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        for end, count, values in zip(self._ends, self.counts, logits, strict=True):
            self._logprobs[end - count : end] = logprobs(values)

    def measure(self, name: str, bits: float, logits: Iterable[Logits]) -> Measured:
        divergence, same = np.zeros(len(self.counts)), 0
        for index, values in enumerate(logits):
            end = self._ends[index]
            wanted = self._logprobs[end - self.counts[index] : end].astype(np.float64)
            divergence[index] = (np.exp(wanted) * (wanted - logprobs(values))).sum()
            same += int((wanted.argmax(-1) == values.argmax(-1)).sum())
        found = Measured(name, bits, divergence, same)
        err.print(f"{name}: {self.mean(found):.6f} nats a token at {bits:.2f} bits a weight")
        return found

    def mean(self, measured: Measured) -> float:
        return float(measured.divergence.sum() / sum(self.counts))

    def interval(self, measured: Measured) -> Interval:
        return mean_interval(measured.divergence.tolist(), self.counts)


def logprobs(logits: Logits) -> NDArray[np.float64]:
    """Along the last axis, in float64: float32's rounding would be a divergence of its own."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def make_questions(recipe: LoadedRecipe, codec: Codec, items: int) -> list[Question]:
    """Evenly spread evaluation items, none with a calibration item's prompt."""
    data = recipe.recipe.data
    seen = [] if data.calibration is None else [example.fields for example in recipe.examples(data.calibration)]
    examples = [example for example in recipe.examples(data.evaluation) if example.fields not in seen]

    def question(example: Example) -> Question:
        _, prompt = codec.prompt(example.fields)
        return Question((*prompt, *codec.answer(example.answer)[:-1]), len(prompt) - 1)

    return [question(example) for example in evenly(examples, items)]


@torch.no_grad()
def torch_logits(loaded: TorchModel, questions: Iterable[Question]) -> Iterator[Logits]:
    for question in questions:
        output = loaded.model(torch.tensor([question.ids], device=loaded.device))
        yield output.logits[0, question.start :].float().cpu().numpy()


def llama_logits(file: Path, questions: list[Question], threads: int) -> Iterator[Logits]:
    """By llama.cpp itself, each question in an empty context."""
    loading = llama_cpp.llama_model_default_params()
    loading.use_extra_bufts = False  # kernels for this CPU alone; those for AMX crash in a virtual machine
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), loading)
    options = llama_cpp.llama_context_default_params()
    longest = max(len(question.ids) for question in questions)
    options.n_ctx = options.n_batch = options.n_ubatch = longest
    options.n_threads = options.n_threads_batch = threads
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = model and llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise SystemExit(f"llama.cpp can't open {file}")
    vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(longest, 0, 1)
    for question in questions:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = len(question.ids)
        for position, token in enumerate(question.ids):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
            batch.logits[position] = position >= question.start
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit(f"llama.cpp failed on {file}")
        logits = llama_cpp.llama_get_logits(context)
        yield np.ctypeslib.as_array(logits, (question.positions, vocab_size)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)


def with_weights(merged: Path, weights: Iterable[tuple[str, Float32]]) -> TorchModel:
    """The merged model with these tensors in place of its own."""
    loaded = load(merged, "cpu")
    parameters = dict(loaded.model.named_parameters())
    for name, values in weights:
        parameters[name].data.copy_(torch.from_numpy(values))
    return loaded


def rounded_as_mlc(merged: MergedCheckpoint) -> Iterator[tuple[str, Float32]]:
    """Every matrix in groups of 32: code round(w / scale) in [-7, 7], scale max|w| / 7 in float16."""
    with TensorReader(merged.folder) as reader:
        for spec in merged.architecture.tensors():
            if len(spec.shape) == 2:
                groups = reader.array(spec.name).reshape(-1, GROUP)
                scales = (np.abs(groups).max(axis=1, keepdims=True) / 7).astype(np.float16).astype(np.float32)
                scales[scales == 0] = 1
                yield spec.name, (np.clip(np.rint(groups / scales), -7, 7) * scales).reshape(spec.shape)


def mlc_bits(architecture: Architecture) -> float:
    """4 bits and a group's float16 scale; vectors in float16."""
    bits = {True: 4 + 16 / GROUP, False: 16.0}
    sizes = [(spec.size, bits[len(spec.shape) == 2]) for spec in architecture.tensors()]
    return sum(size * each for size, each in sizes) / sum(size for size, _ in sizes)


def ours(
    recipe: LoadedRecipe, store: Store, codec: Codec, reference: Reference, budgets: Sequence[str]
) -> Iterator[Measured]:
    """The recipe with each method, and with the last one each budget too. `auto` would only choose among them."""
    methods = [name for name in get_args(Quantization.model_fields["method"].annotation) if name != "auto"]
    asked: dict[str, dict[str, object]] = {f"slmc {name}": {"method": name} for name in methods}
    asked |= {f"slmc {methods[-1]}, budget {one}": {"method": methods[-1], "budget": one} for one in budgets}
    for name, changes in asked.items():
        quantization = recipe.recipe.quantization.model_copy(update=changes)
        changed = LoadedRecipe(recipe.folder, recipe.recipe.model_copy(update={"quantization": quantization}))
        plan = resolve(changed, load_target("host"))
        folder = quantize_stage(plan, store, merge_stage(plan, store), codec).folder
        bits = read_table(folder).bits_per_weight
        yield reference.measure(name, bits, torch_logits(load(folder, "cpu"), reference.questions))


def peers(merged: MergedCheckpoint, reference: Reference, folder: Path, threads: int) -> Iterator[Measured]:
    questions = reference.questions
    mlc = with_weights(merged.folder, rounded_as_mlc(merged))
    yield reference.measure("MLC q4f16_1 rounding", mlc_bits(merged.architecture), torch_logits(mlc, questions))
    exact = write_gguf(merged.folder, folder / "f32.gguf", context=max(len(q.ids) for q in questions))
    control = reference.measure("llama.cpp F32", bits_per_weight(exact), llama_logits(exact, questions, threads))
    if reference.mean(control) > EXPORT_LIMIT:
        raise SystemExit("the exported file is not the merged model: llama.cpp's figures would mean nothing")
    for preset, (kind, pure) in PRESETS.items():
        file = quantize_gguf(exact, folder / f"{preset}.gguf", kind, pure, threads)
        bits = bits_per_weight(file)
        yield reference.measure(f"llama.cpp {preset}", bits, llama_logits(file, questions, threads))
        alone = with_weights(merged.folder, read_gguf(file, merged.architecture))
        yield reference.measure(f"llama.cpp {preset}, weights alone", bits, torch_logits(alone, questions))


def quantize_gguf(source: Path, file: Path, kind: int, pure: bool, threads: int) -> Path:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.pure, options.nthread = kind, pure, threads
    if llama_cpp.llama_model_quantize(str(source).encode(), str(file).encode(), ctypes.byref(options)) != 0:
        raise SystemExit(f"llama.cpp can't quantize {source}")
    return file


def cost_rows(reference: Reference, found: list[Measured]) -> list[list[str]]:
    rows = []
    for one in found:
        interval, total = reference.interval(one), sum(reference.counts)
        spread = f"{interval.low:.5f} to {interval.high:.5f}"
        rows.append([one.name, f"{one.bits:.2f}", f"{reference.mean(one):.5f}", spread, f"{one.same / total:.2%}"])
    return rows


def ratio_rows(mine: list[Measured], others: list[Measured]) -> list[list[str]]:
    """Of the mean divergences, each of ours to each other contender's."""
    rows = []
    for other in others:
        row = [other.name]
        for one in mine:
            interval = mean_interval(one.divergence.tolist(), other.divergence.tolist())
            ratio = one.divergence.sum() / other.divergence.sum()
            row.append("–" if one is other else f"{ratio:.2f} ({interval.low:.2f} to {interval.high:.2f})")
        rows.append(row)
    return rows


def show(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """Print the table; the same as Markdown."""
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join([f"{title}:", "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def bench(options: argparse.Namespace, folder: Path) -> None:
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    recipe, store = load_recipe(options.recipe), Store.default()
    merged = merge_stage(resolve(recipe, load_target("host")), store)
    codec = compile_prompt(recipe, merged.folder, recipe.examples(recipe.recipe.data.evaluation))
    questions = make_questions(recipe, codec, options.items)
    model = load(merged.folder, "cpu")
    vocab_size = merged.architecture.vocab_size
    reference = Reference(questions, torch_logits(model, questions), vocab_size, folder / "reference.npy")
    mine = list(ours(recipe, store, codec, reference, options.budget or ["4.6 bits"]))
    theirs = list(peers(merged, reference, folder, options.threads))
    found = mine + theirs
    where = f"{recipe.recipe.name}, {len(questions)} items, {sum(reference.counts)} tokens"
    columns = ["", "bits a weight", "mean KL", "95% interval", "same first choice"]
    text = show(where, columns, cost_rows(reference, found))
    text += "\n" + show("Mean KL, ours to theirs", ["to", *(one.name for one in mine)], ratio_rows(mine, found))
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        figures = {one.name: {"bits": one.bits, "kl": one.divergence.tolist(), "same": one.same} for one in found}
        options.json.write_text(json.dumps({"positions": reference.counts, "contenders": figures}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a recipe's folder")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--budget", action="append", help='such as "4.6 bits", which it is by default; any number')
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every item's figures here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        bench(options, Path(folder))


if __name__ == "__main__":
    main()
