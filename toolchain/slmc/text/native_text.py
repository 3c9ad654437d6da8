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
from functools import cache
from pathlib import Path
from typing import Self

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


@cache
def _declared(slm: ctypes.CDLL) -> ctypes.CDLL:
    """The library's functions with their types."""
    slm.slm_task_open.argtypes = [c_char_p, POINTER(c_void_p), POINTER(Error)]
    slm.slm_task_close.argtypes, slm.slm_task_close.restype = [c_void_p], None
    for name in ("encoder", "speller", "chooser"):
        new, free = getattr(slm, f"slm_{name}_new"), getattr(slm, f"slm_{name}_free")
        new.argtypes = [c_void_p, POINTER(c_void_p), POINTER(Error)]
        free.argtypes, free.restype = [c_void_p], None
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
