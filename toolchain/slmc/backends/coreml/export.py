"""A quantized checkpoint into a .mlpackage, as a program of its own. Prints a JSON line for each step."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from coremltools.converters.mil.converter import _reset_conversion_state

from slmc.backends.child import tell
from slmc.backends.coreml.layouts import Layout, NeuralEngine
from slmc.backends.coreml.package import save
from slmc.backends.coreml.program import FunctionBuilder
from slmc.backends.coreml.weights import Weights
from slmc.errors import CompileError
from slmc.models.packaged import DECODE, FULL_LOGITS, PACKAGE, PREFILL
from slmc.quant.reader import QuantizedReader

LAYOUTS = {"gpu": Layout, "ane": NeuralEngine}


def export(
    reader: QuantizedReader, out: Path, context: int, chunk: int, delegate: str, metadata: Mapping[str, str]
) -> None:
    """Write `out/model.mlpackage`."""
    _reset_conversion_state()  # names of operations are counted
    total = reader.architecture.weights
    weights = Weights(reader, out)
    builder = FunctionBuilder(weights, context, LAYOUTS[delegate])
    prefill = builder.prefill(chunk)
    tell(weights=total // 2)
    functions = {PREFILL: prefill, DECODE: builder.decode(), FULL_LOGITS: builder.full_logits(chunk)}
    rounded = weights.rounded
    save(functions, weights, metadata, out / PACKAGE)
    tell(weights=total - total // 2, rounded=rounded)


def main() -> None:
    folder, out, context, chunk, delegate, metadata = sys.argv[1:]
    with QuantizedReader(Path(folder)) as reader:
        try:
            export(reader, Path(out), int(context), int(chunk), delegate, json.loads(metadata))
        except CompileError as error:
            tell(error=error.what, todo=error.todo)


if __name__ == "__main__":
    main()
