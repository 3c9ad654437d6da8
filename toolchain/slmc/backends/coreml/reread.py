"""What a package's functions multiply by, held against the quantized checkpoint, as a program of its own.

Weights are found in the order in which operations use them, so a matrix in another's place is seen as much as a
changed bit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slmc.architecture import EMBEDDING
from slmc.backends.child import tell
from slmc.backends.coreml.layouts import MOST_CHANNELS
from slmc.backends.coreml.weights import palettes
from slmc.checkpoint.dtypes import Float32
from slmc.mil.package import Function, Operation, Package
from slmc.mil.values import Constant
from slmc.models.decoder import decoder_parameters, rope_inputs
from slmc.models.projections import Projection, projections, split, stored_vector
from slmc.quant.fp16 import narrow_scales
from slmc.quant.reader import QuantizedReader


def check(reader: QuantizedReader, package: Path, context: int) -> Iterator[tuple[str, bool]]:
    """Each name once; it is wrong where it is wrong in any function."""
    found: dict[str, bool] = {}
    for function in Package(package).functions.values():
        for name, same in _check_function(reader, Used.of(function), context):
            found[name] = found.get(name, True) and same
    yield from found.items()


@dataclass(frozen=True)
class Used:
    """A function's weights, in their order of use."""

    matrices: list[Operation]
    """What makes them, a constant or a decompressed one; the first that rows are taken of is the embedding."""
    biases: list[Constant | None]
    """Of each product."""
    norms: list[Constant]
    tables: list[Constant]
    """Of which rows are taken by position."""
    convolutions: bool

    @classmethod
    def of(cls, function: Function) -> Used:
        made = {output.name: operation for operation in function.operations for output in operation.outputs}
        used = cls([], [], [], [], any(operation.type == "conv" for operation in function.operations))
        for operation in function.operations:
            bound = {parameter: values[0] for parameter, values in operation.inputs.items() if values}
            sources = {key: made[name] for key, name in bound.items() if isinstance(name, str) and name in made}
            used._sort_in(operation.type, sources)
        return used

    def _sort_in(self, kind: str, sources: Mapping[str, Operation]) -> None:
        constants = {key: source.attributes["val"] for key, source in sources.items() if source.type == "const"}
        if kind in ("linear", "conv"):
            self.matrices.append(sources["weight"])
            self.biases.append(constants.get("bias"))
        elif kind == "gather" and "x" in sources:
            if not self.matrices:
                self.matrices.append(sources["x"])
            elif "x" in constants:
                self.tables.append(constants["x"])
        elif kind == "mul" and "y" in constants and max(constants["y"].shape, default=1) > 1:
            self.norms.append(constants["y"])


def _check_function(reader: QuantizedReader, used: Used, context: int) -> Iterator[tuple[str, bool]]:
    a = reader.architecture
    wanted = [Projection(EMBEDDING, 0, a.vocab_size)]
    for projection in projections(a):
        wanted += split(projection, MOST_CHANNELS) if used.convolutions else [projection]
    yield "number of matrices", len(used.matrices) == len(wanted)
    for projection, operation in zip(wanted, used.matrices, strict=False):
        yield _name(projection), _same(reader, projection, operation)
    vectors = {spec.name: spec for spec in a.tensors() if len(spec.shape) == 1}
    yield "number of biases", len(used.biases) == len(wanted) - 1
    for projection, constant in zip(wanted[1:], used.biases, strict=False):
        bias = np.zeros(projection.rows, np.float32)
        if projection.bias is not None:
            bias = stored_vector(reader, vectors[projection.bias])
        same = not bias.any() if constant is None else _equal(constant, bias)
        yield projection.bias or f"{_name(projection)} bias", same
    norms = [one for parameter in decoder_parameters(a) for one in parameter.sources if one.role == "norm"]
    yield "number of norms", len(used.norms) == len(norms)
    for source, constant in zip(norms, used.norms, strict=False):
        yield source.name, _equal(constant, stored_vector(reader, source))
    tables = rope_inputs(a, context)
    yield "number of ropes", len(used.tables) == len(tables)
    for name, constant in zip(tables, used.tables, strict=False):
        yield name, _equal(constant, tables[name])


def _name(projection: Projection) -> str:
    return f"{projection.source} [{projection.start}:{projection.stop}]"


@cache
def _painted(reader: QuantizedReader, projection: Projection) -> tuple[Float32, NDArray[np.uint8]]:
    """Every function has the same; to find them takes long."""
    return palettes(reader, projection)


def _same(reader: QuantizedReader, projection: Projection, operation: Operation) -> bool:
    if not reader.is_quantized(projection.source):
        plain = reader.plain(projection.source)[projection.start : projection.stop]
        return operation.type == "const" and _equal(operation.attributes["val"], plain)
    if operation.type == "constexpr_lut_to_dense":
        centres, places = _painted(reader, projection)
        values, indices = (_array(operation, key) for key in ("lut", "indices"))
        return np.array_equal(values.ravel(), centres.astype(np.float16).ravel()) and np.array_equal(
            indices.ravel(), places.ravel()
        )
    if operation.type != "constexpr_blockwise_shift_scale" or set(operation.inputs) != {"data", "scale"}:
        return False
    codes, scales = projection.read(reader)
    data, scale = (_array(operation, key) for key in ("data", "scale"))
    return np.array_equal(data, codes) and np.array_equal(scale, narrow_scales(scales))


def _array(operation: Operation, parameter: str) -> NDArray[np.generic]:
    [value] = operation.inputs[parameter]
    assert isinstance(value, Constant), f"{operation.label}: {parameter} is computed"
    return value.array()


def _equal(constant: Constant, wanted: Float32) -> bool:
    """As fp16 holds it, in whatever layout."""
    return np.array_equal(constant.array().ravel(), wanted.astype(np.float16).ravel())


def main() -> None:
    folder, package, context = sys.argv[1:]
    with QuantizedReader(Path(folder)) as reader:
        for name, same in check(reader, Path(package), int(context)):
            tell(name=name, same=same)


if __name__ == "__main__":
    main()
