"""A saved ML program: the Manifest names the model, the model names its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from slmc.errors import RunnerError, did_you_mean
from slmc.mil.blobs import BlobFile
from slmc.mil.dtypes import DTYPES, STRING, DType
from slmc.mil.protos import data_types, read_model
from slmc.mil.values import Constant
from slmc.strict import parse

_MANIFEST = "Manifest.json"
_DATA = "Data"
_BESIDE = "@model_path/"
"""Begins the name of a file in the model's own folder."""


class _Item(BaseModel):
    path: str


class _Manifest(BaseModel):
    items: dict[str, _Item] = Field(alias="itemInfoEntries")
    root: str = Field(alias="rootModelIdentifier")


@dataclass(frozen=True)
class Feature:
    """What a name stands for."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]
    """None where a size is known only when the program runs."""


@dataclass(frozen=True)
class Operation:
    type: str
    inputs: Mapping[str, tuple[str | Constant, ...]]
    """By parameter: names of earlier values, or constants."""
    attributes: Mapping[str, Constant]
    """Without its name, which means nothing."""
    outputs: tuple[Feature, ...]

    @property
    def label(self) -> str:
        """For a message: its type and what it makes, or else what it writes to."""
        names = [one.name for one in self.outputs] or [
            one for one in self.inputs.get("input", ()) if isinstance(one, str)
        ]
        return f"{self.type} {', '.join(map(repr, names))}"


@dataclass(frozen=True)
class Function:
    name: str
    opset: str
    inputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    operations: tuple[Operation, ...]


class Package:
    """An opened .mlpackage. Raises RunnerError for one that is damaged, hostile, or no ML program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = _model_path(folder)
        self._blobs: dict[str, BlobFile] = {}
        try:
            model = read_model(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise RunnerError(f"can't read the model: {error}", where=self.path) from None
        kind = model.WhichOneof("Type")
        if kind != "mlProgram" or not model.mlProgram.functions:
            raise RunnerError(f"a model of kind {kind}", where=self.path, expected="an ML program with functions")
        self.functions = {name: self._function(name, one) for name, one in sorted(model.mlProgram.functions.items())}

    def function(self, name: str) -> Function:
        if name not in self.functions:
            raise RunnerError(f"no function {name!r}", where=self.folder, expected=did_you_mean(name, self.functions))
        return self.functions[name]

    def _function(self, name: str, message: Any) -> Function:
        where = f"{self.path}, function {name!r}"
        block = message.block_specializations.get(message.opset)
        if block is None:
            raise RunnerError(f"no program for {message.opset!r}", where=where)
        inputs: list[Feature] = []
        states: list[Feature] = []
        for one in message.inputs:
            state = one.type.WhichOneof("type") == "stateType"
            kind = one.type.stateType.wrappedType if state else one.type
            (states if state else inputs).append(_feature(one.name, kind, where))
        operations = tuple(self._operation(one, where) for one in block.operations)
        known = _known([*inputs, *states], operations, where)
        missing = [output for output in block.outputs if output not in known]
        if missing:
            raise RunnerError(f"nothing makes the output {missing[0]!r}", where=where)
        outputs = tuple(known[output] for output in block.outputs)
        return Function(name, message.opset, tuple(inputs), tuple(states), outputs, operations)

    def _operation(self, message: Any, where: str) -> Operation:
        outputs = tuple(_feature(one.name, one.type, f"{where}, {message.type}") for one in message.outputs)
        where = f"{where}, {message.type} {', '.join(repr(one.name) for one in outputs)}"
        inputs = {
            parameter: tuple(
                one.name if one.WhichOneof("binding") == "name" else self._constant(one.value, where)
                for one in argument.arguments
            )
            for parameter, argument in message.inputs.items()
        }
        given = {key: value for key, value in message.attributes.items() if key != "name"}
        attributes = {key: self._constant(value, where) for key, value in given.items()}
        return Operation(message.type, inputs, attributes, outputs)

    def _constant(self, message: Any, where: str) -> Constant:
        feature = _feature("a constant", message.type, where)
        shape = tuple(size for size in feature.shape if size is not None)
        stored = message.WhichOneof("value")
        if len(shape) != len(feature.shape) or stored is None:
            raise RunnerError(f"a constant of shape {feature.shape}, stored as {stored}", where=where)
        blobs = self._file(message.blobFileValue.fileName, where) if stored == "blobFileValue" else None
        found = Constant(feature.dtype, shape, message.SerializeToString(deterministic=True), message, blobs)
        try:
            found.check()
        except ValueError as error:
            raise RunnerError(f"a constant is damaged: {error}", where=where) from None
        return found

    def _file(self, name: str, where: str) -> BlobFile:
        if name not in self._blobs:
            if not name.startswith(_BESIDE):
                raise RunnerError(f"weights in {name!r}", where=where, expected=f"{_BESIDE}…")
            beside = self.path.parent.relative_to(self.folder.resolve()) / name.removeprefix(_BESIDE)
            self._blobs[name] = BlobFile(_inside(self.folder, beside, where))
        return self._blobs[name]


def _model_path(folder: Path) -> Path:
    """The model that the Manifest names, resolved."""
    manifest = folder / _MANIFEST
    try:
        raw = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunnerError(f"not a Core ML package: {error}", where=manifest) from None
    found = parse(_Manifest, raw, manifest, RunnerError)
    paths = {key: _inside(folder, Path(_DATA) / item.path, manifest) for key, item in found.items.items()}
    if found.root not in paths:
        raise RunnerError(f"no item {found.root!r}, which is to be the model", where=manifest)
    return paths[found.root]


def _inside(folder: Path, path: Path, where: object) -> Path:
    """A file or folder of the package, resolved. Raises RunnerError where it is outside or not there."""
    try:
        root, found = folder.resolve(), (folder / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise RunnerError(f"a file of the package is missing: {error}", where=where) from None
    if not found.is_relative_to(root):
        raise RunnerError(f"the path {str(path)!r} leaves the package", where=where)
    return found


def _feature(name: str, message: Any, where: object) -> Feature:
    """From a protobuf `ValueType`."""
    kind = message.WhichOneof("type")
    if kind != "tensorType":
        raise RunnerError(f"{name!r} is a {kind}", where=where, expected="a tensor")
    number = message.tensorType.dataType
    dtype = DTYPES.get(data_types().get(number, ""))
    if dtype is None:
        text = data_types().get(number, f"number {number}")
        raise RunnerError(f"{name!r} has the element type {text}", where=where, expected=", ".join(DTYPES))
    sizes = (
        one.constant.size if one.WhichOneof("dimension") == "constant" else None
        for one in message.tensorType.dimensions
    )
    return Feature(name, dtype, tuple(sizes))


def _known(given: list[Feature], operations: tuple[Operation, ...], where: str) -> dict[str, Feature]:
    """All values by name. Raises RunnerError where one is used before it is made, or made twice."""
    known = {one.name: one for one in given}
    for operation in operations:
        used = [one for arguments in operation.inputs.values() for one in arguments if isinstance(one, str)]
        missing = [one for one in used if one not in known]
        again = [one.name for one in operation.outputs if one.name in known]
        if missing or again:
            what = f"uses {missing[0]!r} before it is made" if missing else f"makes {again[0]!r} again"
            raise RunnerError(f"{operation.label} {what}", where=where)
        if any(one.dtype is STRING for one in operation.outputs) and operation.type != "const":
            raise RunnerError(f"{operation.label} computes with strings", where=where)
        known |= {one.name: one for one in operation.outputs}
    return known
