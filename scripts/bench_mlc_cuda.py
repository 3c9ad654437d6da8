#!/usr/bin/env python3
"""Speed of the mlc backend's program on a CUDA device, against torch: one quantized model, both in one process.

    python scripts/bench_mlc_cuda.py QUANTIZED [--device cuda|llvm] [--tokens 128] [--steps 64] [--rounds 5]
                                     [--json FILE]

The project's own tests have never run this on a GPU: until the README says otherwise, nobody has. `--device llvm`
runs the same on one thread of this machine's CPU, which shows that the harness works and says nothing of a GPU.

QUANTIZED is a folder that slmc quantized. Ours reads its 4-bit weights in MLC's format; torch's side is transformers'
own model, its weights the same numbers dequantized, with its key-value cache. Both compute in float16 on a GPU and in
float32 on the CPU. First both read the same prompt and the same steps, and how often their first choices agree is
told. Then each round runs both, one after the other: a prompt read at once, its last token's logits there, and steps
of one token each. A step ends when the device has its logits, as whoever picks the next token must wait for them.
Speeds are medians over the rounds; the ratio is the median of each round's own ratio.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from slmc.backends.mlc.tensors import FORMATS
from slmc.backends.mlc.weights import write_weights
from slmc.config_json import read_config
from slmc.imported import CONFIG_KEY
from slmc.names import Activations
from slmc.quant.reader import QuantizedReader
from slmc.runners.mlc_engine import load_weights
from slmc.runners.torch_model import load

OURS, THEIRS = "slmc", "torch"
NAME = "bench"
PAGE = 16
"""Tokens, as MLC's engine has it."""
AGREED = 0.9
"""Of first choices: with less, one of the two is wrong, and its speed is no matter."""
Speeds = dict[str, float]
"""Tokens a second by task."""
Logits = npt.NDArray[np.float32]


class Side(Protocol):
    """A model with its cache. Nothing waits for the device but `sync` and `numpy`."""

    def restart(self) -> None: ...
    def prefill(self, ids: Sequence[int]) -> Any:
        """Logits after the last token, on the device."""

    def verify(self, ids: Sequence[int]) -> Any:
        """Logits after each token."""

    def step(self, token: int) -> Any: ...
    def sync(self) -> None: ...
    def numpy(self, logits: Any) -> Logits:
        """[tokens, vocab_size]."""


class Ours:
    def __init__(self, quantized: Path, folder: Path, device: str, tokens: int, context: int) -> None:
        import tvm
        from tvm import relax

        from slmc.backends.mlc.library.export import compiled
        from slmc.backends.mlc.library.settings import Settings
        from slmc.backends.mlc.library.systems import system_of

        activations: Activations = "float16" if device == "cuda" else "float32"
        form = FORMATS[activations]
        (folder / NAME).mkdir()
        with QuantizedReader(quantized) as reader:
            write_weights(reader, form, folder / NAME, lambda _: None)
        config = {key: value for key, value in read_config(quantized).items() if key != CONFIG_KEY}
        (folder / "config.json").write_text(json.dumps(config))
        settings = Settings(target="host", form=form, context=context, chunk=tokens, model_id=NAME, name=NAME)
        if device == "cuda":
            target = tvm.target.Target(tvm.target.Target.from_device("cuda"), host={"kind": "llvm"})
        else:
            target = system_of("host").target
        start = time.perf_counter()
        executable = compiled(folder, settings, target)
        self.compile_seconds = time.perf_counter() - start
        kind = "cuda" if device == "cuda" else "cpu"
        self._tvm, self._device = tvm, tvm.device(kind, 0)
        self._machine = relax.VirtualMachine(executable, self._device)
        self._weights = load_weights(tvm, self._machine, folder / NAME, kind)
        self._functions = {name: self._machine[name] for name in ("embed", "prefill", "batch_verify", "decode")}
        self._reshape = tvm.get_global_func("vm.builtin.reshape")
        self._state = {
            verb: tvm.get_global_func(f"vm.builtin.kv_state_{verb}")
            for verb in ("add_sequence", "remove_sequence", "begin_forward", "end_forward")
        }
        shape = tvm.runtime.ShapeTuple
        self._cache = self._machine["create_tir_paged_kv_cache"](*map(shape, ([1], [context], [tokens], [PAGE], [0])))
        self._state["add_sequence"](self._cache, 0)

    def restart(self) -> None:
        self._state["remove_sequence"](self._cache, 0)
        self._state["add_sequence"](self._cache, 0)

    def prefill(self, ids: Sequence[int]) -> Any:
        return self._read("prefill", ids)

    def verify(self, ids: Sequence[int]) -> Any:
        return self._read("batch_verify", ids)

    def step(self, token: int) -> Any:
        return self._read("decode", [token])

    def _read(self, function: str, ids: Sequence[int]) -> Any:
        shape = self._tvm.runtime.ShapeTuple
        tokens = self._tvm.runtime.tensor(np.array(ids, np.int32), self._device)
        embedded = self._functions["embed"](tokens, self._weights)
        embedded = self._reshape(embedded, shape([1, *embedded.shape]))
        self._state["begin_forward"](self._cache, shape([0]), shape([len(ids)]))
        logits = self._functions[function](embedded, self._cache, self._weights)[0]
        self._state["end_forward"](self._cache)
        return logits

    def sync(self) -> None:
        self._device.sync()

    def numpy(self, logits: Any) -> Logits:
        found: Logits = logits.numpy()[0]
        return found


class Theirs:
    def __init__(self, quantized: Path, device: str) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch, self._device = torch, "cuda" if device == "cuda" else "cpu"
        dtype = torch.float16 if device == "cuda" else torch.float32
        self._model = load(quantized, "cpu").model.to(device=self._device, dtype=dtype)
        self._past: Any = None

    def restart(self) -> None:
        self._past = None

    def prefill(self, ids: Sequence[int]) -> Any:
        return self._read(ids, 1)

    def verify(self, ids: Sequence[int]) -> Any:
        return self._read(ids, len(ids))

    def step(self, token: int) -> Any:
        return self._read([token], 1)

    def _read(self, ids: Sequence[int], kept: int) -> Any:
        with self._torch.inference_mode():
            tokens = self._torch.tensor([ids], device=self._device)
            found = self._model(tokens, past_key_values=self._past, use_cache=True, logits_to_keep=kept)
        self._past = found.past_key_values
        return found.logits

    def sync(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    def numpy(self, logits: Any) -> Logits:
        found: Logits = logits[0].float().cpu().numpy()
        return found


def agreement(ours: Side, theirs: Side, prompt: Sequence[int], steps: Sequence[int]) -> dict[str, float]:
    """Shares of first choices that both make, and the largest difference of logits, as a share of their range."""
    read = []
    for side in (ours, theirs):
        side.restart()
        every = side.numpy(side.verify(prompt))
        side.restart()
        last = side.numpy(side.prefill(prompt))
        read.append((every, np.concatenate([last, *(side.numpy(side.step(token)) for token in steps)])))
    parts = list(zip(*read, strict=True))
    shares = [float((mine.argmax(-1) == its.argmax(-1)).mean()) for mine, its in parts]
    worst = max(float(np.abs(mine - its).max() / np.ptp(its)) for mine, its in parts)
    names = ("same first choices in the prompt", "same first choices in the steps")
    return {**dict(zip(names, shares, strict=True)), "largest difference of logits, of their range": worst}


def measure(side: Side, prompt: Sequence[int], steps: Sequence[int]) -> Speeds:
    """Each task once, the steps behind the prompt."""

    def decode() -> None:
        for token in steps:
            side.step(token)
            side.sync()

    side.restart()
    read = _seconds(side, lambda: side.prefill(prompt))
    return {
        f"prefill({len(prompt)})": len(prompt) / read,
        f"decode({len(steps)})": len(steps) / _seconds(side, decode),
    }


def _seconds(side: Side, work: Callable[[], Any]) -> float:
    side.sync()
    start = time.perf_counter()
    work()
    side.sync()
    return time.perf_counter() - start


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
        table.add_row(task, *(f"{values[column]:,.{1 if column in (OURS, THEIRS) else 2}f}" for column in columns))
    Console().print(table)


def facts_of(device: str) -> dict[str, Any]:
    import torch
    import transformers
    import tvm

    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, one thread"
    facts = {"device": name, "precision": "float16" if device == "cuda" else "float32"}
    versions = {"tvm": tvm.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return facts | versions | ({"cuda": torch.version.cuda} if device == "cuda" else {})


def check_device(device: str) -> None:
    import torch  # before TVM, which finds CUDA's libraries where torch brought them
    import tvm

    if device != "cuda":
        return
    if not (torch.cuda.is_available() and tvm.cuda(0).exist):
        raise SystemExit("no CUDA device that both torch and TVM can use; --device llvm tries the harness on the CPU")
    # TVM asks NVRTC for machine code, by the package cuda-bindings; nvcc does as well.
    bound = importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bindings")
    if bound is None and shutil.which("nvcc"):
        os.environ.setdefault("TVM_CUDA_COMPILE_MODE", "nvcc")


def check_size(quantized: Path, context: int) -> int:
    """The vocabulary's size. The format has neither windows nor more positions than the model."""
    with QuantizedReader(quantized) as reader:
        a = reader.architecture
    windows = [kind.window for kind in a.layer_kinds if kind.window is not None]
    limit = min([*windows, int(str(read_config(quantized).get("max_position_embeddings", context)))])
    if context > limit:
        raise SystemExit(f"--tokens and --steps come to {context}, and the model has {limit} positions at most")
    return a.vocab_size


def bench(options: argparse.Namespace, folder: Path) -> None:
    check_device(options.device)
    vocabulary = check_size(options.quantized, options.tokens + options.steps)
    ids = [(7919 * index + 13) % vocabulary for index in range(options.tokens + options.steps)]
    prompt, steps = ids[: options.tokens], ids[options.tokens :]
    # Ours first: what TVM has for tensor cores loads in a time that grows with the modules that are there already.
    ours = Ours(options.quantized, folder, options.device, options.tokens, len(ids))
    theirs = Theirs(options.quantized, options.device)
    same = agreement(ours, theirs, prompt, steps)
    told = ", ".join(f"{key}: {value:.3g}" for key, value in same.items())
    print(told, file=sys.stderr)
    if min(list(same.values())[:2]) < AGREED:
        raise SystemExit(f"not timed, the two disagree: {told}")
    sides: dict[str, Side] = {OURS: ours, THEIRS: theirs}
    for side in sides.values():
        measure(side, prompt, steps)  # what is set up once
    rounds = []
    for number in range(options.rounds):
        # Each goes first as often as the other.
        order = list(sides.items())[:: -1 if number % 2 else 1]
        rounds.append({name: measure(side, prompt, steps) for name, side in order})
        print(f"round {number + 1}: {json.dumps(rounds[-1])}", file=sys.stderr)
    summary = summarize(rounds)
    facts = facts_of(options.device) | same | {"compiled in, s": ours.compile_seconds}
    title = f"{options.quantized.name}, {options.rounds} rounds in alternation"
    lines = (f"{key}: {value:.3g}" if isinstance(value, float) else f"{key}: {value}" for key, value in facts.items())
    show(summary, title, "\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps({**facts, "summary": summary, "rounds": rounds}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantized", type=Path, metavar="QUANTIZED", help="a folder that slmc quantized")
    parser.add_argument("--device", choices=("cuda", "llvm"), default="cuda")
    parser.add_argument("--tokens", type=_count, default=128, help="of the prompt")
    parser.add_argument("--steps", type=_count, default=64, help="of one token each, behind it")
    parser.add_argument("--rounds", type=_count, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    os.environ.setdefault("TVM_NUM_THREADS", "1")  # read when the first kernel runs
    with TemporaryDirectory() as folder:
        bench(options, Path(folder))


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


if __name__ == "__main__":
    main()
