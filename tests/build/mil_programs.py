"""Small ML programs, authored with coremltools and saved, for the interpreter to run.

Tests have coremltools from here: it is told to be quiet before it is loaded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TQDM_DISABLE", "1")
for name in ("coremltools", "torchao"):
    logging.getLogger(name).setLevel(logging.ERROR)
torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

from coremltools.converters.mil.mil import Builder as mb  # noqa: E402, N813
from coremltools.converters.mil.mil import types  # noqa: E402
from coremltools.proto import Model_pb2  # noqa: E402

from slmc.mil.interpreter import Interpreter  # noqa: E402
from slmc.mil.package import Package  # noqa: E402

F16, I32 = np.float16, np.int32
INT4, UINT4 = types.nptype_from_builtin(types.int4), types.nptype_from_builtin(types.uint4)
RANDOM = np.random.default_rng(7)
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")

Build = Callable[..., Any]


def tensor(*shape: int, dtype: Any = types.fp16) -> Any:
    return mb.TensorSpec(shape, dtype)


def state(*shape: int) -> Any:
    return mb.StateTensorSpec(shape, types.fp16)


def save(folder: Path, specs: Sequence[Any], build: Build, name: str = "model") -> Path:
    """`build` gets the inputs, and gives one result or several."""
    program = mb.program(input_specs=list(specs), opset_version=ct.target.iOS18)(_named(build, len(specs)))
    model = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    path = folder / f"{name}.mlpackage"
    model.save(str(path))
    return path


def _named(build: Build, count: int) -> Build:
    """mb looks at the parameters' names."""
    names = ", ".join("abcdef"[:count])
    found: Build = eval(f"lambda {names}: build({names})", {"build": build})
    return found


def run(package: Path, *inputs: np.ndarray, function: str = "main") -> list[np.ndarray]:
    """Outputs in order."""
    interpreter = Interpreter(Package(package), function)
    feeds = {name: torch.from_numpy(np.array(one)) for name, one in zip("abcdef", inputs, strict=False)}
    outputs = interpreter.run(feeds, interpreter.new_state())
    return [outputs[one.name].numpy() for one in interpreter.function.outputs]


def some(*shape: int, scale: float = 2.0) -> np.ndarray:
    return (RANDOM.standard_normal(shape) * scale).astype(F16)


def edit(package: Path, change: Callable[[Any], None]) -> Path:
    """Change the saved model: `change` gets the block of its function `main`."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    function = model.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (package / MODEL).write_bytes(model.SerializeToString())
    return package


def operation(block: Any, kind: str) -> Any:
    return next(one for one in block.operations if one.type == kind)


def as_torch(*arrays: np.ndarray) -> list[Any]:
    return [torch.from_numpy(one).double() for one in arrays]
