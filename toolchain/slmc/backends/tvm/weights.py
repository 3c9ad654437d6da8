"""The native library's weight file, written and read: docs/weight-file.md is this module in words.

    header    64 bytes: magic, version, counts, size, SHA-256 of all that follows it
    config    64 bytes: the model's dimensions
    layers    8 bytes each: rope table, window
    tensors   80 bytes each, from the next multiple of 64: name, kind, shape, offset, size
    data      each tensor at a multiple of 64

All little-endian. Matrices are packed as `layout` tells, codes then scales; all else is float32.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import ml_dtypes
import numpy as np
import numpy.typing as npt

from slmc.backends.tvm import layout
from slmc.errors import RunnerError
from slmc.names import Bits

MAGIC, VERSION, ALIGNMENT = b"SLMW\r\n\x1a\n", 1, 64
NO_ROPE = 0xFFFFFFFF
_HEADER = struct.Struct("<8sIIQII32s")
_CONFIG = struct.Struct("<12I3fI")
_LAYER = struct.Struct("<II")
_TENSOR = struct.Struct("<48sIIIIQQ")
_DIGEST_AT, _DIGESTED_FROM = 32, 64


class Gate(IntEnum):
    SILU = 0
    GELU_TANH = 1


class Kind(IntEnum):
    FLOAT32 = 0
    INT4 = 1
    INT8 = 2

    @property
    def bits(self) -> Bits:
        return 4 if self == Kind.INT4 else 8


@dataclass(frozen=True)
class Config:
    """Bytes 64 to 127, in this order."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    """Of the elements of a head, how many are turned by its position: the first."""
    context: int
    group: int
    """Columns that share a scale."""
    gate: Gate
    activations: int
    """0: 8-bit integers; 1: float32."""
    ropes: int
    """How many rope tables there are."""
    rms_eps: float
    embedding_scale: float
    attention_scale: float
    unused: int = 0


@dataclass(frozen=True)
class Layer:
    rope: int
    """Number of its table, or NO_ROPE."""
    window: int
    """Positions that a token sees, itself among them; 0: all before it."""


@dataclass(frozen=True)
class Tensor:
    name: str
    kind: Kind
    rows: int
    """Of a matrix padded to a multiple of 32."""
    columns: int

    def size(self, group: int) -> int:
        """In bytes."""
        elements = self.rows * self.columns
        return elements * 4 if self.kind == Kind.FLOAT32 else elements * self.kind.bits // 8 + elements // group * 2

    @property
    def code_bytes(self) -> int:
        return self.rows * self.columns * self.kind.bits // 8


class WeightsWriter:
    """One weight file, its tensors written one after another in their order. A context manager.

    Leaving it before every tensor is complete is a bug and raises; the file is then removed.
    """

    def __init__(self, path: Path, config: Config, layers: Sequence[Layer], tensors: Sequence[Tensor]) -> None:
        self._path, self._group = path, config.group
        self._places, end = _places(len(layers), tensors, config.group)
        self._end = end
        self._written = {tensor.name: 0 for tensor in tensors}
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._file: BinaryIO = path.open("xb")
        self._file.write(_HEADER.pack(MAGIC, VERSION, len(tensors), end, len(layers), 0, bytes(32)))
        self._file.write(_CONFIG.pack(*astuple(config)))
        for layer in layers:
            self._file.write(_LAYER.pack(*astuple(layer)))
        self._file.seek(_table_start(len(layers)))
        for tensor in tensors:
            place, size = self._places[tensor.name], tensor.size(config.group)
            name = tensor.name.encode("ascii")
            if len(name) > 47:
                raise ValueError(f"{tensor.name} is longer than 47 bytes")
            self._file.write(_TENSOR.pack(name, tensor.kind, tensor.rows, tensor.columns, 0, place, size))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unfinished = [name for name, rows in self._written.items() if rows != self._tensors[name].rows]
        self._file.truncate(self._end)
        self._file.close()
        if error is None and not unfinished:
            self._seal()
            return
        self._path.unlink()
        if error is None:
            raise ValueError(f"{unfinished[0]} is not complete")

    def floats(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """A whole tensor of kind FLOAT32, float32 [rows, columns] or [columns]."""
        tensor = self._tensors[name]
        if tensor.kind != Kind.FLOAT32 or values.size != tensor.rows * tensor.columns:
            raise ValueError(f"float32 {values.shape} does not fit {tensor}")
        self._file.seek(self._places[name])
        self._file.write(np.ascontiguousarray(values, "<f4").tobytes())
        self._written[name] = tensor.rows

    def rows(self, name: str, codes: layout.Codes, scales: layout.Float32) -> None:
        """The next rows of a matrix, a multiple of 8: int8 [rows, columns] and float32 [rows, columns / group]."""
        tensor, first = self._tensors[name], self._written[name]
        packed = layout.pack_codes(codes, tensor.kind.bits)
        if codes.shape[1] != tensor.columns or first + len(codes) > tensor.rows:
            raise ValueError(f"rows {first} on, {codes.shape}, do not fit {tensor}")
        place = self._places[name]
        self._file.seek(place + first * tensor.columns * tensor.kind.bits // 8)
        self._file.write(packed.tobytes())
        self._file.seek(place + tensor.code_bytes + first * tensor.columns // self._group * 2)
        self._file.write(layout.pack_scales(scales).tobytes())
        self._written[name] = first + len(codes)

    def _seal(self) -> None:
        with self._path.open("r+b") as file:
            digest = _digest(file)
            file.seek(_DIGEST_AT)
            file.write(digest)


class WeightsReader:
    """A weight file, mapped and checked. Raises RunnerError where it is none of this version, or is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise RunnerError(f"the weight file can't be read: {error}", where=path) from None
        self._check_header()
        values = _CONFIG.unpack_from(self._bytes.data, _HEADER.size)
        names = [field.name for field in fields(Config)]
        self.config = Config(**dict(zip(names, values, strict=True)))
        start = _HEADER.size + _CONFIG.size
        self.layers = [
            Layer(*_LAYER.unpack_from(self._bytes.data, start + i * _LAYER.size)) for i in range(self._layers)
        ]
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[str, int] = {}
        for index in range(self._tensors):
            self._read_tensor(_table_start(self._layers) + index * _TENSOR.size)

    def floats(self, name: str) -> layout.Float32:
        """float32 [rows, columns]."""
        tensor = self.tensors[name]
        return self._view(name, 0, tensor.rows * tensor.columns * 4).view("<f4").reshape(tensor.rows, tensor.columns)

    def rows(self, name: str, start: int, stop: int) -> tuple[layout.Codes, layout.Float32]:
        """Rows [start, stop) of a matrix, `start` a multiple of 8: codes int8 and scales float32, as they were."""
        tensor, group = self.tensors[name], self.config.group
        first, last = start // layout.LANES, -(-stop // layout.LANES)
        shape = layout.Shape(tensor.rows, tensor.columns, group, tensor.kind.bits)
        codes = self._view(name, 0, tensor.code_bytes).reshape(shape.codes)[first:last]
        scales = self._view(name, tensor.code_bytes, tensor.size(group)).view(ml_dtypes.bfloat16).reshape(shape.scales)
        count = stop - start
        return layout.unpack_codes(codes)[:count], layout.unpack_scales(scales[first:last])[:count]

    @property
    def sha256(self) -> str:
        """As the header has it."""
        return self._bytes[_DIGEST_AT : _DIGEST_AT + 32].tobytes().hex()

    def verify(self) -> None:
        """Raises RunnerError where the bytes don't have the digest in the header."""
        with self.path.open("rb") as file:
            if _digest(file).hex() != self.sha256:
                raise RunnerError(
                    "the weight file is damaged: its bytes don't have the SHA-256 in its header", where=self.path
                )

    def _check_header(self) -> None:
        if len(self._bytes) < _HEADER.size + _CONFIG.size or self._bytes[: len(MAGIC)].tobytes() != MAGIC:
            raise RunnerError("not a weight file of slm", where=self.path)
        _, version, self._tensors, size, self._layers, _, _ = _HEADER.unpack_from(self._bytes.data)
        if version != VERSION:
            raise RunnerError(f"a weight file of version {version}", where=self.path, expected=f"version {VERSION}")
        table_end = _table_start(self._layers) + self._tensors * _TENSOR.size
        if size != len(self._bytes) or table_end > size:
            raise RunnerError(f"{len(self._bytes)} bytes, the header says {size}: cut off or changed", where=self.path)

    def _read_tensor(self, at: int) -> None:
        name, kind, rows, columns, _, place, size = _TENSOR.unpack_from(self._bytes.data, at)
        text = name.rstrip(b"\0").decode("ascii", "replace")
        if kind not in set(Kind) or place % ALIGNMENT or place + size > len(self._bytes):
            raise RunnerError(f"tensor {text} does not lie within the file", where=self.path)
        tensor = Tensor(text, Kind(kind), rows, columns)
        if self.config.group not in (32, 64, 128) or size != tensor.size(self.config.group):
            raise RunnerError(f"tensor {text} has {size} bytes, not what its shape takes", where=self.path)
        self.tensors[text], self._places[text] = tensor, place

    def _view(self, name: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
        place = self._places[name]
        return self._bytes[place + start : place + stop]


def _table_start(layers: int) -> int:
    return _aligned(_HEADER.size + _CONFIG.size + layers * _LAYER.size)


def _places(layers: int, tensors: Sequence[Tensor], group: int) -> tuple[dict[str, int], int]:
    """Where each tensor begins, and where the file ends."""
    places: dict[str, int] = {}
    end = _table_start(layers) + len(tensors) * _TENSOR.size
    for tensor in tensors:
        if tensor.name in places:
            raise ValueError(f"two tensors named {tensor.name}")
        places[tensor.name] = _aligned(end)
        end = places[tensor.name] + tensor.size(group)
    return places, end


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT


def _digest(file: BinaryIO) -> bytes:
    file.seek(_DIGESTED_FROM)
    found = hashlib.sha256()
    while block := file.read(1 << 20):
        found.update(block)
    return found.digest()
