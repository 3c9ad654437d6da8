"""A quantized checkpoint into a folder: model.mlpackage, and model.json, which says what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from slmc.architecture import MATRICES
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.backends.coreml.tools import PACKAGE as TOOL
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.packaged import PACKAGE, PackagedDecoder, package_digest, write_packaged
from slmc.names import DelegateName
from slmc.quant.reader import QuantizedReader


def compile_model(
    model: QuantizedCheckpoint,
    out: Path,
    advance: Advance,
    *,
    context: int,
    chunk: int,
    delegate: DelegateName = "gpu",
    metadata_: Mapping[str, str],
) -> None:
    """Write package and model.json into the empty folder `out`; `advance` counts weights.

    `chunk` is how many tokens one call of prefill takes, and no more than the context; `metadata_` goes into the
    package. Raises CompileError for scales above what fp16 holds, for shapes that the Neural Engine does not take, and
    where coremltools fails.
    """
    assert delegate in ("gpu", "ane"), delegate
    if delegate == "ane":
        _check_shapes(model)
    chunk = min(chunk, context)
    wanted = [str(model.folder), str(out), str(context), str(chunk), delegate, json.dumps(dict(metadata_))]
    rounded = 0
    for told in child.lines("coreml.export", wanted):
        if "error" in told:
            raise CompileError(told["error"], where=model.folder, todo=told["todo"])
        advance(told["weights"])
        rounded = told.get("rounded", rounded)
    write_packaged(
        out,
        PackagedDecoder(
            package_sha256=package_digest(out / PACKAGE),
            delegate=delegate,
            vocab_size=model.architecture.vocab_size,
            context=context,
            chunk=chunk,
            rounded_scales=rounded,
            versions={TOOL: metadata.version(TOOL)},
        ),
    )


_MULTIPLE, _MOST_INPUTS = 32, 16384
"""Of channels, as the Neural Engine takes them; more outputs are split."""


def _check_shapes(model: QuantizedCheckpoint) -> None:
    with QuantizedReader(model.folder) as reader:
        for spec in model.architecture.tensors():
            if spec.role not in MATRICES:
                continue
            if any(extent % _MULTIPLE for extent in spec.shape) or spec.shape[1] > _MOST_INPUTS:
                raise CompileError(
                    f"{spec.name} is {spec.shape[0]} x {spec.shape[1]}, which the Neural Engine does not take",
                    expected=f"multiples of {_MULTIPLE}, and at most {_MOST_INPUTS} columns",
                    todo="take --delegate gpu",
                )
            if not reader.is_quantized(spec.name):
                raise CompileError(
                    f"{spec.name} is kept, and the Neural Engine's products are palettes",
                    todo="take it out of quantization.keep, or take --delegate gpu",
                )
