"""Text in, decision or text out, with a model of any runtime: all but the model by the native library, as in an app of
ExecuTorch or Core ML.
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
from slmc.text.native_text import Done, NativeChooser, NativeTask, NativeWriter, Sampling


class ChooserDecider:
    """Raises RunnerError for files that are damaged."""

    def __init__(self, engine: Engine, library: Path, task: Path) -> None:
        self._engine = engine
        self._task = NativeTask(load_library(library), task)
        self._labels = self._task.labels
        self._chooser = NativeChooser(self._task, task) if self._labels else None
        self._writer = NativeWriter(self._task, task)

    @property
    def labels(self) -> Sequence[str]:
        return self._labels

    def write(self, fields: Mapping[str, str], max_tokens: int) -> Written:
        """Greedily, within the task's grammar where it has one."""
        engine, start = self._engine, time.perf_counter()
        engine.rewind(0)
        prompt = self._writer.begin(fields, engine.context, Sampling(max_tokens=max_tokens))
        logits, steps = engine.extend(prompt), 0
        prefilled = time.perf_counter()
        while (piece := self._writer.give(logits)).done == Done.MORE:
            logits, steps = engine.extend([piece.id]), steps + 1
        ids, logprobs = self._writer.answer()
        times = Times(
            prefill_ms=(prefilled - start) * 1000,
            decode_ms=(time.perf_counter() - prefilled) * 1000,
            prefill_tokens=len(prompt),
            decode_tokens=steps,
            decode_steps=steps,
        )
        return Written(prompt, ids, logprobs, times)

    def decide(self, fields: Mapping[str, str]) -> tuple[Ids, Verdict, Times]:
        """The prompt's ids as C read them, the verdict and the times. Raises InputError for a task without labels."""
        if self._chooser is None:
            raise InputError("the task file has no labels to choose from")
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
