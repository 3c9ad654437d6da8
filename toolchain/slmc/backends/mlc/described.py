"""What a compiled model library says of itself, read from the file, and whether it fits the weights beside it.

A library for a phone can't be asked here. Its description is a JSON text, which lies in it as it is.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from slmc.backends.mlc.tensors import Tensor
from slmc.errors import CompileError

_START = re.compile(rb'\{"[a-z_]+": ')


class _Parameter(BaseModel):
    name: str
    shape: tuple[int | Literal["vocab_size"], ...]
    """Some of MLC-LLM's families name the vocabulary."""
    dtype: str


class Description(BaseModel):
    """What is looked at of a `_metadata`."""

    params: tuple[_Parameter, ...]
    prefill_chunk_size: int
    memory_usage: dict[str, int] = {}


def check_library(library: Path, tensors: Iterable[Tensor], vocab_size: int, chunk: int) -> None:
    """Raises CompileError for the first weight that library and files have otherwise, and for a smaller chunk."""
    described = read_description(library)
    wanted = {one.name: (_sized(one.shape, vocab_size), one.dtype) for one in described.params}
    stored = {tensor.name: (tensor.shape, tensor.dtype) for tensor in tensors}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            raise CompileError(
                f"the library has {name} as {_told(wanted.get(name))}",
                where=library,
                expected=f"{_told(stored.get(name))}, as the weight files have it",
                todo="set mlc_llm: none in the recipe's target, for slmc's own compiler",
            )
    if described.prefill_chunk_size < chunk:
        raise CompileError(
            f"the library reads {described.prefill_chunk_size} tokens at once", where=library, expected=str(chunk)
        )


def read_description(library: Path) -> Description:
    """The JSON of `_metadata`. Raises CompileError where there is none, or none that makes sense."""
    for octets in _members(library):
        for found in _START.finditer(octets):
            described = _parsed(octets, found.start())
            if described is not None:
                return described
    raise CompileError("the library does not describe itself", where=library, expected="the JSON of MLC's _metadata")


def _parsed(octets: bytes, start: int) -> Description | None:
    """The description that begins here."""
    end = octets.find(b"\x00", start)
    try:
        found, _ = json.JSONDecoder().raw_decode(octets[start : end if end >= 0 else None].decode("utf-8", "replace"))
        return Description.model_validate(found)
    except (ValueError, RecursionError):
        return None


def _members(library: Path) -> Iterable[bytes]:
    if not tarfile.is_tarfile(library):
        return [library.read_bytes()]
    try:
        with tarfile.open(library) as archive:
            files = (archive.extractfile(member) for member in archive)
            return [file.read() for file in files if file is not None]
    except (tarfile.TarError, EOFError) as error:
        raise CompileError(f"the library is no archive: {error}", where=library) from None


def _sized(extents: Iterable[int | str], vocab_size: int) -> tuple[int, ...]:
    return tuple(vocab_size if extent == "vocab_size" else int(extent) for extent in extents)


def _told(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "none" if entry is None else f"{entry[1]} {list(entry[0])}"
