"""The C that reads task files, through ctypes: the same code on this machine as on a phone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_int32, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np

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


class NativeTask:
    """An opened task file. Raises RunnerError where it is missing or damaged."""

    def __init__(self, library: ctypes.CDLL, path: Path) -> None:
        self._slm, self.handle, error = _declared(library), c_void_p(), Error()
        self._encoder, self._speller = c_void_p(), c_void_p()
        error.check(self._slm.slm_task_open(str(path).encode(), byref(self.handle), byref(error)), path)
        error.check(self._slm.slm_encoder_new(self.handle, byref(self._encoder), byref(error)), path)
        error.check(self._slm.slm_speller_new(self.handle, byref(self._speller), byref(error)), path)

    def __del__(self) -> None:
        if self.handle:
            self._slm.slm_encoder_free(self._encoder)
            self._slm.slm_speller_free(self._speller)
            self._slm.slm_task_close(self.handle)

    @property
    def fields(self) -> list[str]:
        """What an item's fields are called, in the order in which they are given."""
        return [str(self._slm.slm_field_name(self.handle, i)) for i in range(self._slm.slm_field_count(self.handle))]

    @property
    def labels(self) -> list[str]:
        return [str(self._slm.slm_label(self.handle, i)) for i in range(self._slm.slm_label_count(self.handle))]

    def encode(self, text: str | bytes, *, special: bool = False) -> list[int]:
        """Ids of a text, with the tokenizer's own around them where asked. Raises RunnerError for what is not UTF-8."""
        content = text.encode() if isinstance(text, str) else text
        ids, count = POINTER(c_int32)(), c_size_t()
        status = self._slm.slm_encode(self._encoder, Text.of(content), special, byref(ids), byref(count))
        if status:
            raise RunnerError(f"a text of {len(content)} bytes can't be encoded: status {status}")
        return np.ctypeslib.as_array(ids, (count.value,)).tolist() if count.value else []

    def spell(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds, and what is left at the end: one more."""
        told, text = [], Text()
        for id in ids:
            self._slm.slm_spell(self._speller, id, byref(text))
            told.append(str(text))
        self._slm.slm_spell_end(self._speller, byref(text))
        return [*told, str(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens."""
        return "".join(self.spell(ids))


@cache
def _declared(slm: ctypes.CDLL) -> ctypes.CDLL:
    """The library's functions with their types."""
    slm.slm_task_open.argtypes = [c_char_p, POINTER(c_void_p), POINTER(Error)]
    slm.slm_task_close.argtypes, slm.slm_task_close.restype = [c_void_p], None
    for name in ("encoder", "speller"):
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
    slm.slm_spell.argtypes = [c_void_p, c_int32, POINTER(Text)]
    slm.slm_spell_end.argtypes = [c_void_p, POINTER(Text)]
    return slm
