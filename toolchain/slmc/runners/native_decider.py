"""Text in, decision out: the native library's prompt, tokenizer and search through ctypes, as an app calls them."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_float, c_int32, c_size_t, c_void_p
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from slmc.errors import RunnerError
from slmc.models.compiled import WEIGHTS, read_compiled
from slmc.runners.answers import Times
from slmc.runners.choose import Verdict
from slmc.runners.contract import Ids
from slmc.runners.loop import Written
from slmc.runners.native_engine import Info, OpenOptions, load_library, open_library
from slmc.text.native_text import Done, Error, NativeTask, RawDecision, Sampling, Text, texts_of


class _Options(Structure):
    _fields_ = (("context", c_int32), ("threads", c_int32), ("prefix", c_char_p), ("abstain_below", c_float))


class _Check(Structure):
    _fields_ = (("items", c_int32), ("failed", c_int32), ("text", c_char * 256))


@dataclass(frozen=True)
class Generation:
    """An answer in text, or as much of it as there was room for."""

    ids: tuple[int, ...]
    """Without the end token; those of a stop string are among them."""
    text: str
    logprobs: tuple[float, ...]
    """Of each id, and of the end token where it came: over the whole vocabulary, as the model says it."""
    done: Done
    prompt_ids: Ids
    times: Times = field(compare=False)


@dataclass(frozen=True)
class Decision:
    choice: int
    """A label's index."""
    probability: float
    """Among all labels."""
    unexplored: float
    """What the labels share that were not come to."""
    abstained: bool
    prompt_ids: tuple[int, ...]
    logprobs: Mapping[int, float]
    """Of each label that was come to."""
    prefill_tokens: int
    decode_tokens: int
    decode_steps: int
    encode_ms: float
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Check:
    items: int
    failed: int | None
    """The first item that came out otherwise."""
    text: str


class NativeDecider:
    """A model with a task. Raises RunnerError for files that are damaged or don't belong together."""

    def __init__(
        self,
        artifact: Path,
        task: Path,
        *,
        threads: int = 1,
        prefix: Path | None = None,
        abstain_below: float = 0.0,
        kernels: str | None = None,
        library: Path | None = None,
    ) -> None:
        """`kernels` names a CPU level; `library` is used in place of the artifact's own."""
        self._model, self._decider, error = c_void_p(), c_void_p(), Error()
        compiled = read_compiled(artifact)
        self._slm = _declared(load_library(library) if library else open_library(artifact, compiled))
        self.task = NativeTask(self._slm, task)
        weights = artifact / WEIGHTS
        opening = OpenOptions(verify=0, kernels=None if kernels is None else kernels.encode())
        opened = self._slm.slm_open(str(weights).encode(), byref(opening), byref(self._model), byref(error))
        error.check(opened, weights)
        options = _Options(0, threads, None if prefix is None else str(prefix).encode(), abstain_below)
        made = self._slm.slm_decider_new(
            self._model, self.task.handle, byref(options), byref(self._decider), byref(error)
        )
        error.check(made, prefix or task)
        self.fields = self.task.fields
        self.labels = self.task.labels

    def __del__(self) -> None:
        if self._model:
            self._slm.slm_decider_free(self._decider)
            self._slm.slm_close(self._model)

    @property
    def kernels(self) -> str:
        """The CPU level whose kernels run."""
        info = Info()
        self._slm.slm_model_info_get(self._model, byref(info))
        name: bytes = info.kernels
        return name.decode()

    @property
    def head_rows(self) -> tuple[int, int]:
        """Rows of the head that decisions read, and all; both padded."""
        kept, every = c_size_t(), c_size_t()
        self._slm.slm_head_rows(self._decider, byref(kept), byref(every))
        return kept.value, every.value

    def classify(self, fields: Mapping[str, str]) -> Decision:
        """The likeliest label for an item."""
        contents = [fields[name].encode() for name in self.fields]
        found = RawDecision()
        self._check(self._slm.slm_classify(self._decider, texts_of(contents), len(contents), byref(found)))
        logprobs = {i: self._slm.slm_choice_logprob(self._decider, i) for i in range(len(self.labels))}
        return Decision(
            choice=found.choice,
            probability=found.probability,
            unexplored=found.unexplored,
            abstained=bool(found.abstained),
            prompt_ids=self._prompt_ids(),
            logprobs={choice: value for choice, value in logprobs.items() if not math.isnan(value)},
            prefill_tokens=found.prefill_tokens,
            decode_tokens=found.decode_tokens,
            decode_steps=found.decode_steps,
            encode_ms=found.encode_nanoseconds / 1e6,
            prefill_ms=found.prefill_nanoseconds / 1e6,
            decode_ms=found.decode_nanoseconds / 1e6,
        )

    def _prompt_ids(self) -> Ids:
        count = c_size_t()
        ids = self._slm.slm_prompt_ids(self._decider, byref(count))
        return tuple(ids[: count.value])

    def cancel(self) -> None:
        """From any thread: what is being decided, or else the next, ends with an error."""
        self._slm.slm_decider_cancel(self._decider)

    def decide(self, fields: Mapping[str, str]) -> tuple[Ids, Verdict, Times]:
        """The same as the runner contract's answers have it."""
        found = self.classify(fields)
        times = Times(
            prefill_ms=found.prefill_ms,
            decode_ms=found.decode_ms,
            prefill_tokens=found.prefill_tokens,
            decode_tokens=found.decode_tokens,
            decode_steps=found.decode_steps,
        )
        return found.prompt_ids, Verdict(found.choice, dict(found.logprobs), found.unexplored), times

    def generate(
        self,
        fields: Mapping[str, str],
        *,
        max_tokens: int = 0,
        stops: Sequence[str] = (),
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Generation:
        """Write an item's answer, greedily at temperature 0; within the task's grammar where it has one.

        0 max_tokens are as many as there is room for, 0 top_k are all tokens.
        """
        start = time.perf_counter()
        contents = [fields[name].encode() for name in self.fields]
        asked = Sampling(
            max_tokens=max_tokens, stops=stops, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        self._check(self._slm.slm_answer_begin(self._decider, texts_of(contents), len(contents), byref(asked)))
        begun = time.perf_counter()
        text, done = Text(), c_int32()
        parts = []
        while done.value == Done.MORE:
            self._check(self._slm.slm_answer_next(self._decider, byref(text), byref(done)))
            parts.append(str(text))
        count = c_size_t()
        ids = self._slm.slm_answer_ids(self._decider, byref(count))[: count.value]
        logprobs = self._slm.slm_answer_logprobs(self._decider, byref(count))[: count.value]
        spent = time.perf_counter() - begun
        prompt = self._prompt_ids()
        times = Times(
            prefill_ms=(begun - start) * 1000,
            decode_ms=spent * 1000,
            prefill_tokens=len(prompt),
            decode_tokens=max(len(ids) - 1, 0),
            decode_steps=max(len(ids) - 1, 0),
        )
        return Generation(tuple(ids), "".join(parts), tuple(logprobs), Done(done.value), prompt, times)

    def write(self, fields: Mapping[str, str], max_tokens: int) -> Written:
        """The same as the runner contract's answers have it, greedily."""
        found = self.generate(fields, max_tokens=max_tokens)
        return Written(found.prompt_ids, found.ids, found.logprobs, found.times)

    def self_test(self) -> Check:
        """Decide the golden items, and hold them against what was said where the task was built."""
        found = _Check()
        self._check(self._slm.slm_self_test(self._decider, byref(found)))
        return Check(found.items, None if found.failed < 0 else found.failed, found.text.decode("utf-8", "replace"))

    def prefix(self) -> bytes:
        """The file that has what every prompt begins with, read by the model."""
        content, size = c_void_p(), c_size_t()
        self._check(self._slm.slm_prefix_make(self._decider, byref(content), byref(size)))
        return ctypes.string_at(content, size.value)

    def _check(self, status: int) -> None:
        if status:
            text: bytes = self._slm.slm_decider_error_text(self._decider)
            raise RunnerError(text.decode("utf-8", "replace"))


@cache
def _declared(slm: ctypes.CDLL) -> ctypes.CDLL:
    """The functions of a library with their types."""
    slm.slm_decider_new.argtypes = [c_void_p, c_void_p, POINTER(_Options), POINTER(c_void_p), POINTER(Error)]
    slm.slm_decider_free.argtypes, slm.slm_decider_free.restype = [c_void_p], None
    slm.slm_decider_error_text.argtypes, slm.slm_decider_error_text.restype = [c_void_p], c_char_p
    slm.slm_decider_cancel.argtypes, slm.slm_decider_cancel.restype = [c_void_p], None
    slm.slm_classify.argtypes = [c_void_p, POINTER(Text), c_size_t, POINTER(RawDecision)]
    slm.slm_prompt_ids.argtypes, slm.slm_prompt_ids.restype = [c_void_p, POINTER(c_size_t)], POINTER(c_int32)
    slm.slm_choice_logprob.argtypes, slm.slm_choice_logprob.restype = [c_void_p, c_int32], c_double
    slm.slm_answer_begin.argtypes = [c_void_p, POINTER(Text), c_size_t, POINTER(Sampling)]
    slm.slm_answer_next.argtypes = [c_void_p, POINTER(Text), POINTER(c_int32)]
    slm.slm_answer_ids.argtypes, slm.slm_answer_ids.restype = [c_void_p, POINTER(c_size_t)], POINTER(c_int32)
    slm.slm_answer_logprobs.argtypes = [c_void_p, POINTER(c_size_t)]
    slm.slm_answer_logprobs.restype = POINTER(c_double)
    slm.slm_self_test.argtypes = [c_void_p, POINTER(_Check)]
    slm.slm_prefix_make.argtypes = [c_void_p, POINTER(c_void_p), POINTER(c_size_t)]
    slm.slm_head_rows.argtypes, slm.slm_head_rows.restype = [c_void_p, POINTER(c_size_t), POINTER(c_size_t)], None
    return slm
