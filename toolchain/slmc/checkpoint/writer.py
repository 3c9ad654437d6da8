"""Write safetensors files as a stream: the header first, then each tensor by blocks of rows.

The same tensors give the same bytes. Data begins at a multiple of 64 bytes and wider elements
come first, as the safetensors library orders them, so that a mapped tensor is always aligned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from slmc.checkpoint.dtypes import NUMPY, DType
from slmc.checkpoint.folders import write_json
from slmc.checkpoint.stored import INDEX, SINGLE

_ALIGNMENT = 64
_SHARD_BYTES = 4 * 10**9


@dataclass(frozen=True)
class TensorFormat:
    """A tensor to be written."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return NUMPY[self.dtype].itemsize * int(np.prod(self.shape, dtype=np.int64))


class SafetensorsWriter:
    """One safetensors file, written through `write`. A context manager.

    Leaving it before every tensor is complete is a bug and raises; the file is then removed.
    """

    def __init__(self, path: Path, tensors: Sequence[TensorFormat]) -> None:
        self._path = path
        self._tensors = {tensor.name: tensor for tensor in tensors}
        if len(self._tensors) != len(tensors):
            raise ValueError("two tensors of one name")
        ordered = sorted(tensors, key=lambda tensor: -NUMPY[tensor.dtype].itemsize)
        header, start = _header(ordered)
        self._next: dict[str, int] = {}
        """Where each tensor's next block goes."""
        self._end: dict[str, int] = {}
        for tensor in ordered:
            self._next[tensor.name], start = start, start + tensor.size
            self._end[tensor.name] = start
        self._file: BinaryIO = path.open("xb")
        self._file.write(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        unfinished = [name for name, place in self._next.items() if place != self._end[name]]
        if error is None and not unfinished:
            return
        self._path.unlink()
        if error is None:
            raise ValueError(f"{unfinished[0]} is not complete")

    def write(self, name: str, block: npt.NDArray[np.generic]) -> None:
        """Append rows to a tensor. Tensors may take turns; each gets its rows in their order."""
        tensor, place = self._tensors[name], self._next[name]
        if block.dtype != NUMPY[tensor.dtype] or block.shape[1:] != tensor.shape[1:]:
            raise ValueError(f"{block.dtype} {block.shape} does not fit {tensor}")
        if place + block.nbytes > self._end[name]:
            raise ValueError(f"too many rows for {tensor}")
        self._file.seek(place)
        self._file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        self._next[name] = place + block.nbytes


class CheckpointWriter:
    """A folder's weights: `model.safetensors`, or shards with an index beyond 4 GB. A context manager."""

    def __init__(self, folder: Path, tensors: Sequence[TensorFormat], shard_bytes: int = _SHARD_BYTES) -> None:
        shards = _shards(tensors, shard_bytes)
        self._folder = folder
        self._shards = dict(zip(_shard_names(len(shards)), shards, strict=True))
        self._files = ExitStack()
        self._writers: dict[str, SafetensorsWriter] = {}
        for name, shard in self._shards.items():
            writer = self._files.enter_context(SafetensorsWriter(folder / name, shard))
            self._writers.update({tensor.name: writer for tensor in shard})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)
        if error is None and len(self._shards) > 1:
            _write_index(self._folder / INDEX, self._shards)

    def write(self, name: str, block: npt.NDArray[np.generic]) -> None:
        """Append rows to a tensor, in their order."""
        self._writers[name].write(name, block)


def _header(ordered: Sequence[TensorFormat]) -> tuple[bytes, int]:
    """The length and JSON that open the file, and where data begins."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    offset = 0
    for tensor in ordered:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, 8 + len(text)


def _shards(tensors: Sequence[TensorFormat], shard_bytes: int) -> list[list[TensorFormat]]:
    """Tensors in their order, a new shard where the next would make it too large."""
    shards: list[list[TensorFormat]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + tensor.size > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += tensor.size
    return shards


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _write_index(path: Path, shards: Mapping[str, Sequence[TensorFormat]]) -> None:
    total = sum(tensor.size for shard in shards.values() for tensor in shard)
    weight_map = {tensor.name: name for name, shard in shards.items() for tensor in shard}
    write_json(path, {"metadata": {"total_size": total}, "weight_map": weight_map})
