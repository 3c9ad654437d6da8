"""Compile a quantized checkpoint into a folder for one target.

model.slm     the checkpoint's own codes and scales, packed for the kernels, see docs/weight-file.md
model.json    what the folder holds, see `slmc.models.compiled`
slm.h         the library's interface; inside the framework for iOS
the library   where the target's developers look for it, see `package`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from slmc import digest
from slmc.architecture import Architecture
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.tvm import layout
from slmc.backends.tvm.kernels.levels import levels
from slmc.backends.tvm.library import build_library
from slmc.backends.tvm.pack import write_weights
from slmc.backends.tvm.package import package
from slmc.backends.tvm.tools import versions
from slmc.backends.tvm.weights import Kind, WeightsReader
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.compiled import WEIGHTS, CompiledDecoder, Library, write_compiled
from slmc.names import Activations
from slmc.quant.reader import QuantizedReader

Builder = Callable[[str, Path], None]
"""Builds the library for a triple at a path."""


def compile_model(
    model: QuantizedCheckpoint,
    out: Path,
    advance: Advance,
    *,
    triples: Sequence[str],
    context: int,
    activations: Activations = "int8",
    build: Builder = build_library,
) -> None:
    """Write libraries, weights and model.json into the empty folder `out`; `advance` counts weights.

    Raises CompileError for a shape or a kept tensor that the kernels can't hold, and where a compiler fails.
    """
    check_shape(model.architecture, model.folder)
    paths = package(triples, out, build)
    with QuantizedReader(model.folder) as reader:
        write_weights(reader, context, activations, out / WEIGHTS, advance)
    libraries = [_library(out, triple, path) for triple, path in paths.items()]
    write_compiled(out, _describe(out, libraries, activations))


def check_shape(architecture: Architecture, folder: Path) -> None:
    """Raises CompileError naming a dimension that is not made of the kernels' blocks."""
    dimensions = (
        ("hidden_size", architecture.hidden_size, layout.BLOCK),
        ("intermediate_size", architecture.intermediate_size, layout.BLOCK),
        ("head_dim", architecture.head_dim, layout.HEAD_DIM_STEP),
        ("num_attention_heads * head_dim", architecture.heads * architecture.head_dim, layout.BLOCK),
    )
    for name, size, multiple in dimensions:
        if size % multiple:
            raise CompileError(
                f"{name} is {size}", where=folder / "config.json", expected=f"a multiple of {multiple}, for backend tvm"
            )


def _library(out: Path, triple: str, path: Path) -> Library:
    names = tuple(level.name for level in levels(triple.partition("-")[0]))
    return Library(path=path.relative_to(out).as_posix(), triple=triple, sha256=digest.of_file(path), kernels=names)


def _describe(out: Path, libraries: Sequence[Library], activations: Activations) -> CompiledDecoder:
    weights = WeightsReader(out / WEIGHTS)
    kinds = {tensor.kind for tensor in weights.tensors.values()} - {Kind.FLOAT32}
    return CompiledDecoder(
        libraries=tuple(libraries),
        weights_sha256=weights.sha256,
        activations=activations,
        bits=tuple(sorted({kind.bits for kind in kinds})),
        vocab_size=weights.config.vocab_size,
        context=weights.config.context,
        versions=versions(),
    )
