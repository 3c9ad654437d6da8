"""Text in, decision out: the native library's prompt, tokenizer and search through ctypes, as an app calls them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slmc.errors import RunnerError
from slmc.models.compiled import WEIGHTS, read_compiled
from slmc.runners.native_engine import load_library, open_library
from slmc.text.native_text import Error, NativeTask, Text


class _Options(Structure):
    _fields_ = (("context", c_int32), ("threads", c_int32), ("prefix", c_char_p), ("abstain_below", c_float))


class _Decision(Structure):
    _fields_ = (
        ("choice", c_int32),
        ("probability", c_float),
        ("unexplored", c_float),
        ("abstained", c_int32),
        ("prompt_tokens", c_int32),
        ("prefill_tokens", c_int32),
        ("decode_tokens", c_int32),
        ("decode_steps", c_int32),
        ("encode_nanoseconds", c_uint64),
        ("prefill_nanoseconds", c_uint64),
        ("decode_nanoseconds", c_uint64),
    )


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
        library: Path | None = None,
    ) -> None:
        self._model, self._decider, error = c_void_p(), c_void_p(), Error()
        compiled = read_compiled(artifact)
        self._slm = _declared(load_library(library) if library else open_library(artifact, compiled))
        self.task = NativeTask(self._slm, task)
        weights = artifact / WEIGHTS
        error.check(self._slm.slm_open(str(weights).encode(), None, byref(self._model), byref(error)), weights)
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
    def head_rows(self) -> tuple[int, int]:
        """Rows of the head that decisions read, and all; both padded."""
        kept, every = c_size_t(), c_size_t()
        self._slm.slm_head_rows(self._decider, byref(kept), byref(every))
        return kept.value, every.value

    def classify(self, fields: Mapping[str, str]) -> Decision:
        """The likeliest label for an item."""
        contents = [fields[name].encode() for name in self.fields]
        texts = (Text * len(contents))(*map(Text.of, contents))
        found = _Decision()
        self._check(self._slm.slm_classify(self._decider, texts, len(contents), byref(found)))
        count = c_size_t()
        ids = self._slm.slm_prompt_ids(self._decider, byref(count))
        logprobs = {i: self._slm.slm_choice_logprob(self._decider, i) for i in range(len(self.labels))}
        return Decision(
            choice=found.choice,
            probability=found.probability,
            unexplored=found.unexplored,
            abstained=bool(found.abstained),
            prompt_ids=tuple(ids[: count.value]),
            logprobs={choice: value for choice, value in logprobs.items() if not math.isnan(value)},
            prefill_tokens=found.prefill_tokens,
            decode_tokens=found.decode_tokens,
            decode_steps=found.decode_steps,
            encode_ms=found.encode_nanoseconds / 1e6,
            prefill_ms=found.prefill_nanoseconds / 1e6,
            decode_ms=found.decode_nanoseconds / 1e6,
        )

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
    slm.slm_classify.argtypes = [c_void_p, POINTER(Text), c_size_t, POINTER(_Decision)]
    slm.slm_prompt_ids.argtypes, slm.slm_prompt_ids.restype = [c_void_p, POINTER(c_size_t)], POINTER(c_int32)
    slm.slm_choice_logprob.argtypes, slm.slm_choice_logprob.restype = [c_void_p, c_int32], c_double
    slm.slm_prefix_make.argtypes = [c_void_p, POINTER(c_void_p), POINTER(c_size_t)]
    slm.slm_head_rows.argtypes, slm.slm_head_rows.restype = [c_void_p, POINTER(c_size_t), POINTER(c_size_t)], None
    return slm
