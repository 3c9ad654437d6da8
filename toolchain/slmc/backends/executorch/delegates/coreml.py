"""Core ML, for iOS and macOS: stateful, one token a call, as a state is not shared between two programs."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import coremltools
import numpy as np
from coremltools.proto import Model_pb2
from executorch.backends.apple.coreml import executorchcoreml
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from executorch.exir.backend.partitioner import Partitioner
from numpy.typing import NDArray

from slmc.backends.executorch.attention import Attention, PlainAttention
from slmc.backends.executorch.delegates import Stored
from slmc.backends.executorch.pte import PteFile
from slmc.quant.packing import Codes
from slmc.quant.reader import QuantizedReader

Bytes = NDArray[np.uint8]

FP16 = True
_BLOB_MAGIC = 0xDEADBEEF


def attention(reader: QuantizedReader, context: int) -> Attention:
    return PlainAttention(reader.architecture, context)


def partitioner() -> Partitioner:
    """Packages that it makes are the same bytes each time."""
    executorchcoreml.flatten_directory_contents = _flatten_same
    specs = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=coremltools.target.iOS18,
        compute_precision=coremltools.precision.FLOAT16,
        compute_unit=coremltools.ComputeUnit.CPU_AND_GPU,
    )
    return CoreMLPartitioner(compile_specs=specs, take_over_mutable_buffer=True)


_flatten = executorchcoreml.flatten_directory_contents


def _flatten_same(folder: str) -> bytes | None:
    """coremltools writes maps in any order and names items at random; nothing depends on either."""
    for path in Path(folder).rglob("model.mlmodel"):
        path.write_bytes(_parsed(path).SerializeToString(deterministic=True))
    for path in Path(folder).rglob("Manifest.json"):
        text = path.read_text(encoding="utf-8")
        for identifier, item in json.loads(text)["itemInfoEntries"].items():
            text = text.replace(identifier, str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])))
        path.write_text(json.dumps(json.loads(text), indent=1, sort_keys=True), encoding="utf-8")
    found: bytes | None = _flatten(folder)
    return found


def _parsed(path: Path) -> Any:
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    return model


def package(file: PteFile, folder: Path) -> Path:
    """Write the .mlpackage of a program into an empty folder."""
    [(_, payload)] = file.payloads("forward")
    assert executorchcoreml.unflatten_directory_contents(payload, str(folder))
    return next(folder.rglob("*.mlpackage"))


def stored(file: PteFile) -> Iterator[Stored]:
    with TemporaryDirectory() as name:
        yield from _Package(package(file, Path(name))).matrices()


class _Package:
    """A saved ML program: its operations, and the blobs beside them."""

    def __init__(self, folder: Path) -> None:
        items = json.loads((folder / "Manifest.json").read_text(encoding="utf-8"))["itemInfoEntries"].values()
        paths = {item["name"]: folder / "Data" / item["path"] for item in items}
        function = _parsed(paths["model.mlmodel"]).mlProgram.functions["main"]
        self._operations = function.block_specializations[function.opset].operations
        self._blob = np.fromfile(paths["weights"] / "weight.bin", np.uint8)

    def matrices(self) -> Iterator[Stored]:
        """In the order in which `gather` and `linear` use them."""
        made = {output.name: one for one in self._operations for output in one.outputs}
        for operation in self._operations:
            wanted = {"gather": "x", "linear": "weight"}.get(operation.type)
            if wanted is None:
                continue
            source = made.get(operation.inputs[wanted].arguments[0].name)
            if source is not None and source.type == "constexpr_blockwise_shift_scale":
                yield self._matrix(source, made)

    def _matrix(self, operation: Any, made: dict[str, Any]) -> Stored:
        values = {
            key: (
                argument.value if argument.WhichOneof("binding") == "value" else made[argument.name].attributes["val"]
            )
            for key, one in operation.inputs.items()
            for argument in one.arguments
        } | dict(operation.attributes)
        (rows, columns), packed = _shape(values["data"]), self._read(values["data"])
        codes = np.empty((rows, columns), np.int8)
        halves = packed[: rows * columns // 2].reshape(rows, columns // 2)
        codes[:, ::2], codes[:, 1::2] = _signed(halves % 16), _signed(halves // 16)
        scales = self._read(values["scale"]).view(np.float16).astype(np.float32).reshape(_shape(values["scale"]))
        return Stored(codes, scales)

    def _read(self, value: Any) -> Bytes:
        """Bytes of a value, which lies in the blob file under a header of its own (coremltools' StorageFormat.hpp)."""
        start = value.blobFileValue.offset
        magic, _, size, offset = struct.unpack_from("<IIQQ", self._blob.data, start)
        assert magic == _BLOB_MAGIC, f"no blob at {start}"
        return self._blob[offset : offset + size]


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(one.constant.size for one in value.type.tensorType.dimensions)


def _signed(halves: Bytes) -> Codes:
    """Four bits in two's complement."""
    return (halves ^ 8).astype(np.int8) - np.int8(8)
