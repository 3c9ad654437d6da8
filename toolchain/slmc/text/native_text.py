"""The C that reads task files, through ctypes: the same code on this machine as on a phone."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint64,
    c_void_p,
)
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from slmc.errors import RunnerError


class Error(Structure):
    """`slm_error`."""

    _fields_ = (("status", c_int), ("text", c_char * 256))

    def check(self, status: int, where: Path) -> None:
        """Raises RunnerError with what the library said."""
        if status:
            raise RunnerError(self.text.decode("utf-8", "replace"), where=where)


class Text(Structure):
    """`slm_text`."""

    _fields_ = (("bytes", c_void_p), ("size", c_size_t))

    def __str__(self) -> str:
        return ctypes.string_at(self.bytes, self.size).decode() if self.size else ""

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The bytes must outlive it."""
        return cls(ctypes.cast(c_char_p(content), c_void_p), len(content))


def texts_of(contents: Sequence[bytes]) -> ctypes.Array[Text]:
    """An array of texts; the bytes must outlive it."""
    return (Text * len(contents))(*map(Text.of, contents))


class RawDecision(Structure):
    """`slm_decision`."""

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


class Sampling(Structure):
    """`slm_sampling`: greedily at temperature 0; 0 max_tokens are as many as there is room for, 0 top_k all tokens."""

    _fields_ = (
        ("temperature", c_float),
        ("top_p", c_float),
        ("top_k", c_int32),
        ("max_tokens", c_int32),
        ("seed", c_uint64),
        ("stops", POINTER(Text)),
        ("stop_count", c_size_t),
    )

    def __init__(
        self,
        *,
        max_tokens: int = 0,
        stops: Sequence[str] = (),
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._contents = [stop.encode() for stop in stops]  # which must outlive the texts
        super().__init__(temperature, top_p, top_k, max_tokens, seed, texts_of(self._contents), len(stops))


class Done(IntEnum):
    """`slm_done`."""

    MORE = 0
    ENDED = 1
    STOPPED = 2
    LENGTH = 3


class NativeTask:
    """An opened task file. Raises RunnerError where it is missing or damaged."""

    def __init__(self, library: ctypes.CDLL, path: Path) -> None:
        self.library, self.handle, error = _declared(library), c_void_p(), Error()
        self._encoder, self._speller = c_void_p(), c_void_p()
        error.check(self.library.slm_task_open(str(path).encode(), byref(self.handle), byref(error)), path)
        error.check(self.library.slm_encoder_new(self.handle, byref(self._encoder), byref(error)), path)
        error.check(self.library.slm_speller_new(self.handle, byref(self._speller), byref(error)), path)

        self.fields = self._strings("field_name", "field_count")
        """What an item's fields are called, in the order in which they are given."""
        self.labels = self._strings("label", "label_count")

    def _strings(self, name: str, count: str) -> list[str]:
        one, many = getattr(self.library, f"slm_{name}"), getattr(self.library, f"slm_{count}")
        return [str(one(self.handle, index)) for index in range(many(self.handle))]

    def __del__(self) -> None:
        if self.handle:
            self.library.slm_encoder_free(self._encoder)
            self.library.slm_speller_free(self._speller)
            self.library.slm_task_close(self.handle)

    def encode(self, text: str | bytes, *, special: bool = False) -> list[int]:
        """Ids of a text, with the tokenizer's own around them where asked. Raises RunnerError for what is not UTF-8."""
        content = text.encode() if isinstance(text, str) else text
        ids, count = POINTER(c_int32)(), c_size_t()
        status = self.library.slm_encode(self._encoder, Text.of(content), special, byref(ids), byref(count))
        if status:
            raise RunnerError(f"a text of {len(content)} bytes can't be encoded: status {status}")
        return np.ctypeslib.as_array(ids, (count.value,)).tolist() if count.value else []

    def spell(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds, and what is left at the end: one more."""
        told, text = [], Text()
        for id in ids:
            self.library.slm_spell(self._speller, id, byref(text))
            told.append(str(text))
        self.library.slm_spell_end(self._speller, byref(text))
        return [*told, str(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens."""
        return "".join(self.spell(ids))


class NativeChooser:
    """The search for the likeliest label, for a model of any kind. Raises RunnerError where the task has no labels."""

    def __init__(self, task: NativeTask, path: Path) -> None:
        self._slm, self._handle, error = task.library, c_void_p(), Error()
        self._task = task  # which must outlive it
        error.check(self._slm.slm_chooser_new(task.handle, byref(self._handle), byref(error)), path)

    def __del__(self) -> None:
        self._slm.slm_chooser_free(self._handle)

    def begin(self, fields: Mapping[str, str]) -> tuple[int, ...]:
        """The ids of the prompt and of what all labels begin with."""
        contents = [fields[name].encode() for name in self._task.fields]
        ids, count = POINTER(c_int32)(), c_size_t()
        texts = texts_of(contents)
        self._check(self._slm.slm_chooser_begin(self._handle, texts, len(contents), byref(ids), byref(count)))
        return tuple(ids[: count.value])

    def give(self, logits: NDArray[np.float32]) -> tuple[int, ...]:
        """Take logits, float32 [vocabulary]; the path after `begin` whose logits are wanted next, empty at the end."""
        path, count = POINTER(c_int32)(), c_size_t()
        row = np.ascontiguousarray(logits, np.float32)
        given = row.ctypes.data_as(POINTER(c_float)), row.size
        self._check(self._slm.slm_chooser_give(self._handle, *given, byref(path), byref(count)))
        return tuple(path[: count.value])

    def decision(self) -> tuple[RawDecision, dict[int, float]]:
        """And the log-probability of each label that was come to."""
        found = RawDecision()
        self._check(self._slm.slm_chooser_decision(self._handle, byref(found)))
        told = {i: self._slm.slm_chooser_logprob(self._handle, i) for i in range(len(self._task.labels))}
        return found, {choice: value for choice, value in told.items() if value == value}

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise RunnerError(
                f"the search ended with status {status}", expected="a text in UTF-8, logits that are numbers"
            )


class Piece(NamedTuple):
    """What one more token makes of an answer."""

    id: int
    """-1 where the model ended it."""
    text: str
    done: Done


class NativeWriter:
    """Writes answers in text, for a model of any kind. Raises RunnerError where the task has no prompt."""

    def __init__(self, task: NativeTask, path: Path) -> None:
        self._slm, self._handle, error = _declared_writer(task.library), c_void_p(), Error()
        self._task = task  # which must outlive it
        error.check(self._slm.slm_writer_new(task.handle, byref(self._handle), byref(error)), path)

    def __del__(self) -> None:
        self._slm.slm_writer_free(self._handle)

    def begin(self, fields: Mapping[str, str], context: int, sampling: Sampling) -> tuple[int, ...]:
        """The ids of the prompt, with room for an answer in a context of so many tokens."""
        contents = [fields[name].encode() for name in self._task.fields]
        asked = texts_of(contents), len(contents), byref(sampling), context
        ids, count = POINTER(c_int32)(), c_size_t()
        self._check(self._slm.slm_writer_begin(self._handle, *asked, byref(ids), byref(count)))
        return tuple(ids[: count.value])

    def give(self, logits: NDArray[np.float32]) -> Piece:
        """Take logits, float32 [vocabulary]: after the prompt, and then after each token as long as there are more."""
        row = np.ascontiguousarray(logits, np.float32)
        given = row.ctypes.data_as(POINTER(c_float)), row.size
        id, text, done = c_int32(), Text(), c_int32()
        self._check(self._slm.slm_writer_give(self._handle, *given, byref(id), byref(text), byref(done)))
        return Piece(id.value, str(text), Done(done.value))

    def answer(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Its ids so far, without the end token; the log-probability of each, and of the end token where it came."""
        count, told = c_size_t(), c_size_t()
        ids = self._slm.slm_writer_ids(self._handle, byref(count))
        logprobs = self._slm.slm_writer_logprobs(self._handle, byref(told))
        return tuple(ids[: count.value]), tuple(logprobs[: told.value])

    def _check(self, status: int) -> None:
        if status:
            text: bytes = self._slm.slm_writer_error_text(self._handle)
            raise RunnerError(text.decode("utf-8", "replace"))


@cache
def _declared(slm: ctypes.CDLL) -> ctypes.CDLL:
    """The library's functions with their types."""
    slm.slm_task_open.argtypes = [c_char_p, POINTER(c_void_p), POINTER(Error)]
    slm.slm_task_close.argtypes, slm.slm_task_close.restype = [c_void_p], None
    for name in ("encoder", "speller", "chooser"):
        _declare_lifetime(slm, name)
    for name in ("slm_field_count", "slm_label_count"):
        count = getattr(slm, name)
        count.argtypes, count.restype = [c_void_p], c_size_t
    for name in ("slm_field_name", "slm_label"):
        text = getattr(slm, name)
        text.argtypes, text.restype = [c_void_p, c_size_t], Text
    slm.slm_encode.argtypes = [c_void_p, Text, c_int, POINTER(POINTER(c_int32)), POINTER(c_size_t)]
    ids, count = POINTER(POINTER(c_int32)), POINTER(c_size_t)
    slm.slm_chooser_begin.argtypes = [c_void_p, POINTER(Text), c_size_t, ids, count]
    slm.slm_chooser_give.argtypes = [c_void_p, POINTER(c_float), c_size_t, ids, count]
    slm.slm_chooser_decision.argtypes = [c_void_p, POINTER(RawDecision)]
    slm.slm_chooser_logprob.argtypes, slm.slm_chooser_logprob.restype = [c_void_p, c_int32], c_double
    slm.slm_spell.argtypes = [c_void_p, c_int32, POINTER(Text)]
    slm.slm_spell_end.argtypes = [c_void_p, POINTER(Text)]
    return slm


@cache
def _declared_writer(slm: ctypes.CDLL) -> ctypes.CDLL:
    """The same of a writer, which libraries before version 1.2 don't have."""
    _declare_lifetime(slm, "writer")
    ids, count = POINTER(POINTER(c_int32)), POINTER(c_size_t)
    slm.slm_writer_error_text.argtypes, slm.slm_writer_error_text.restype = [c_void_p], c_char_p
    slm.slm_writer_begin.argtypes = [c_void_p, POINTER(Text), c_size_t, POINTER(Sampling), c_size_t, ids, count]
    given, told = (c_void_p, POINTER(c_float), c_size_t), (POINTER(c_int32), POINTER(Text), POINTER(c_int32))
    slm.slm_writer_give.argtypes = [*given, *told]
    slm.slm_writer_ids.argtypes, slm.slm_writer_ids.restype = [c_void_p, count], POINTER(c_int32)
    slm.slm_writer_logprobs.argtypes, slm.slm_writer_logprobs.restype = [c_void_p, count], POINTER(c_double)
    return slm


def _declare_lifetime(slm: ctypes.CDLL, name: str) -> None:
    new, free = getattr(slm, f"slm_{name}_new"), getattr(slm, f"slm_{name}_free")
    new.argtypes = [c_void_p, POINTER(c_void_p), POINTER(Error)]
    free.argtypes, free.restype = [c_void_p], None
