"""coremltools' protobuf types without coremltools, which takes seconds to import, and prints while it does."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from slmc.errors import MissingToolError

_NAME = "slmc_coreml_proto"


def read_model(octets: bytes) -> Any:
    """A `CoreML.Specification.Model`. Raises ValueError where the bytes are none."""
    model = _package().Model_pb2.Model()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with coremltools

    try:
        model.ParseFromString(octets)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return model


@cache
def data_types() -> dict[int, str]:
    """Names of `CoreML.Specification.MILSpec.DataType`, by number."""
    return {number: name for name, number in _package().MIL_pb2.DataType.items()}


@cache
def _package() -> ModuleType:
    """Generated modules name each other relatively, so that their folder is a package under any name. Protobuf itself
    sees to it that a type is the same one when coremltools is imported too.
    """
    whole = find_spec("coremltools")  # finds it, does not import it
    if whole is None or whole.origin is None:
        raise MissingToolError("coremltools is not installed", todo="pip install 'slmc[coreml]'")
    folder = Path(whole.origin).parent / "proto"
    spec = spec_from_file_location(_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    found = sys.modules[_NAME] = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
