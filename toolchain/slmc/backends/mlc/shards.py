"""MLC's weight files: `params_shard_<n>.bin` and `tensor-cache.json`, as TVM's runtime reads them.

    {"metadata": {"ParamSize", "ParamBytes", "BitsPerParam"},
     "records": [{"dataPath", "format": "raw-shard", "nbytes", "md5sum",
                  "records": [{"name", "shape", "dtype", "format": "raw", "nbytes", "byteOffset"}]}]}

The format is in `src/runtime/vm/tensor_cache_support.cc` of apache/tvm; little-endian, no alignment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from slmc.backends.mlc.tensors import CODES, Array, Tensor
from slmc.models.mlc import WEIGHTS

_SHARD_BYTES = 32 * 1024 * 1024
"""Of a file with several tensors; a larger one has a file of its own."""


class ShardWriter:
    """Writes tensors one after another, and the index when it is finished. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._digest = hashlib.md5(usedforsecurity=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, tensor: Tensor, blocks: Iterable[Array]) -> None:
        """`blocks` are the tensor's rows in order."""
        shard, file = self._place(_bytes(tensor))
        start = file.tell()
        for block in blocks:
            octets = block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes()
            file.write(octets)
            self._digest.update(octets)
        written = file.tell() - start
        assert written == _bytes(tensor), f"{tensor.name}: {written} bytes for {tensor.dtype} {tensor.shape}"
        entry = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "format": "raw"}
        shard["records"].append({**entry, "nbytes": written, "byteOffset": start})

    def finish(self, parameters: int) -> None:
        """Write the index; `parameters` is how many weights the model has."""
        self._end_shard()
        total = sum(shard["nbytes"] for shard in self._shards)
        names = sum(len(shard["records"]) for shard in self._shards)
        metadata = {"ParamSize": names, "ParamBytes": float(total), "BitsPerParam": total * 8 / parameters}
        text = json.dumps({"metadata": metadata, "records": self._shards}, indent=2)
        (self._folder / WEIGHTS).write_text(text + "\n", encoding="ascii")

    def _place(self, size: int) -> tuple[dict[str, Any], BinaryIO]:
        if self._file is None or self._file.tell() + size > _SHARD_BYTES:
            self._end_shard()
            name = f"params_shard_{len(self._shards)}.bin"
            self._shards.append({"dataPath": name, "format": "raw-shard", "records": []})
            self._file = (self._folder / name).open("xb")
            self._digest = hashlib.md5(usedforsecurity=False)
        return self._shards[-1], self._file

    def _end_shard(self) -> None:
        if self._file is not None:
            self._shards[-1] |= {"nbytes": self._file.tell(), "md5sum": self._digest.hexdigest()}
            self._file.close()
            self._file = None


def stored_codes(folder: Path) -> frozenset[str]:
    """MLC's names of the matrices that a folder has as codes and scales."""
    index = json.loads((folder / WEIGHTS).read_text(encoding="ascii"))
    names = [one["name"] for shard in index["records"] for one in shard["records"]]
    return frozenset(name.removesuffix(CODES) for name in names if name.endswith(CODES))


def _bytes(tensor: Tensor) -> int:
    size = {"uint32": 4, "float32": 4, "float16": 2}[tensor.dtype]
    for extent in tensor.shape:
        size *= extent
    return size
