"""Core ML, for iOS and macOS: stateful, one token a call, as a state is not shared between two programs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import coremltools
from coremltools.proto import Model_pb2
from executorch.backends.apple.coreml import executorchcoreml
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from executorch.exir.backend.partitioner import Partitioner

from slmc.backends.executorch.attention import Attention, PlainAttention
from slmc.backends.executorch.delegates import Stored
from slmc.backends.executorch.pte import PteFile
from slmc.mil.package import Operation, Package
from slmc.mil.values import Constant
from slmc.quant.reader import QuantizedReader

FP16 = True


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
    """In the order in which `gather` and `linear` use them."""
    with TemporaryDirectory() as name:
        operations = Package(package(file, Path(name))).functions["main"].operations
        made = {output.name: one for one in operations for output in one.outputs}
        for operation in operations:
            wanted = {"gather": "x", "linear": "weight"}.get(operation.type)
            [bound] = operation.inputs[wanted] if wanted else [None]
            source = made.get(bound) if isinstance(bound, str) else None
            if source is not None and source.type == "constexpr_blockwise_shift_scale":
                yield Stored(*(_array(source, made, key) for key in ("data", "scale")))


def _array(operation: Operation, made: dict[str, Operation], parameter: str) -> Any:
    [value] = operation.inputs[parameter]
    constant = value if isinstance(value, Constant) else made[value].attributes["val"]
    return constant.array()
