"""Text in, decision out, with a model of any runtime: prompt, tokenizer and search by the native library, as an app of
ExecuTorch or Core ML has them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from slmc.errors import InputError
from slmc.runners.answers import Times
from slmc.runners.choose import Verdict
from slmc.runners.contract import Ids
from slmc.runners.engine import Engine
from slmc.runners.loop import Written, shared
from slmc.runners.native_engine import load_library
from slmc.text.native_text import NativeChooser, NativeTask


class ChooserDecider:
    """Raises RunnerError for files that are damaged."""

    def __init__(self, engine: Engine, library: Path, task: Path) -> None:
        self._engine = engine
        self._task = NativeTask(load_library(library), task)
        self._chooser = NativeChooser(self._task, task)
        self._labels = self._task.labels

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    def write(self, fields: Mapping[str, str], max_tokens: int) -> Written:
        """Raises InputError: in such an app the runtime's own code writes."""
        raise InputError("the task file's library writes answers for backend tvm alone", expected="a task with labels")

    def decide(self, fields: Mapping[str, str]) -> tuple[Ids, Verdict, Times]:
        """The prompt's ids as C read them, the verdict and the times."""
        engine, start = self._engine, time.perf_counter()
        engine.rewind(0)
        ids = self._chooser.begin(fields)
        held: Ids = ()
        logits, steps, read = engine.extend(ids), 0, 0
        prefilled = time.perf_counter()
        while wanted := self._chooser.give(logits):
            same = shared(held, wanted)
            engine.rewind(len(ids) + same)
            logits, held = engine.extend(wanted[same:]), wanted
            steps, read = steps + 1, read + len(wanted) - same
        found, logprobs = self._chooser.decision()
        times = Times(
            prefill_ms=(prefilled - start) * 1000,
            decode_ms=(time.perf_counter() - prefilled) * 1000,
            prefill_tokens=len(ids),
            decode_tokens=read,
            decode_steps=steps,
        )
        return ids[: found.prompt_tokens], Verdict(found.choice, logprobs, found.unexplored), times
