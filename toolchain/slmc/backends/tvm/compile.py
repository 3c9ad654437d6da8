"""Compile a quantized checkpoint into a folder that `slmc.runners.tvm_engine` opens.

model.so             the decoder's code, for one CPU level
weights.safetensors  the checkpoint's own codes and scales, packed for the kernels
model.json           what an engine must know, see `slmc.models.compiled`
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from slmc import digest
from slmc.architecture import Architecture
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.tvm import layout
from slmc.backends.tvm.link import library_name
from slmc.backends.tvm.parameters import packed_shapes, padded_context, stored_tensors, write_weights
from slmc.backends.tvm.tools import check_tools, versions
from slmc.console import Advance
from slmc.errors import CompileError
from slmc.models.compiled import CACHE_DTYPES, WEIGHTS, Buffer, CompiledDecoder, write_compiled
from slmc.quant.reader import QuantizedReader
from slmc.target import TvmVariant

__all__ = ["check_tools", "compile_model"]

PREFILL_TOKENS = 128
"""Ids that one call of prefill takes: enough to use each weight often, few enough to stay in a CPU's cache."""
HEAD_DIM_MULTIPLE = 16


def compile_model(
    model: QuantizedCheckpoint, out: Path, advance: Advance, *, variant: TvmVariant, context: int
) -> None:
    """Write library, weights and model.json into the empty folder `out`; `advance` counts weights.

    Raises CompileError for a shape or a kept tensor that the kernels can't hold, and where the compiler fails.
    """
    check_shape(model.architecture, model.folder)
    with QuantizedReader(model.folder) as reader:
        shapes = packed_shapes(reader)
        library = out / library_name(variant.triple)
        _generate(model.folder, library, variant, context)
        write_weights(reader, shapes, context, out / WEIGHTS, advance)
        write_compiled(out, _describe(reader, shapes, library, variant, context))


def check_shape(architecture: Architecture, folder: Path) -> None:
    """Raises CompileError naming a dimension that is not made of the kernels' blocks."""
    dimensions = (
        ("hidden_size", architecture.hidden_size, layout.BLOCK),
        ("intermediate_size", architecture.intermediate_size, layout.BLOCK),
        ("head_dim", architecture.head_dim, HEAD_DIM_MULTIPLE),
        ("num_attention_heads * head_dim", architecture.heads * architecture.head_dim, layout.BLOCK),
    )
    for name, size, multiple in dimensions:
        if size % multiple:
            raise CompileError(
                f"{name} is {size}", where=folder / "config.json", expected=f"a multiple of {multiple}, for backend tvm"
            )


def _describe(
    reader: QuantizedReader, shapes: Mapping[str, layout.Shape], library: Path, variant: TvmVariant, context: int
) -> CompiledDecoder:
    architecture = reader.architecture
    positions, dtype = padded_context(context), CACHE_DTYPES[variant.kernels]
    heads = (architecture.layers, architecture.kv_heads)
    keys = (*heads, positions // layout.LANES, architecture.head_dim, layout.LANES)
    values = (*heads, positions, architecture.head_dim)
    return CompiledDecoder(
        library=library.name,
        library_sha256=digest.of_file(library),
        triple=variant.triple,
        cpu=variant.cpu,
        cpu_features=variant.features,
        kernels=variant.kernels,
        bits=tuple(sorted({shape.bits for shape in shapes.values()})),
        vocab_size=architecture.vocab_size,
        context=context,
        prefill_tokens=_prefill_tokens(context),
        keys=Buffer(shape=keys, dtype=dtype),
        values=Buffer(shape=values, dtype=dtype),
        parameters=tuple(tensor.name for tensor in stored_tensors(architecture, shapes, context)),
        versions=versions(),
    )


def _generate(model: Path, library: Path, variant: TvmVariant, context: int) -> None:
    command = [
        *(sys.executable, "-m", "slmc.backends.tvm.codegen"),
        *("--model", str(model)),
        *("--library", str(library)),
        *("--triple", variant.triple),
        *("--cpu", variant.cpu),
        *("--kernels", variant.kernels),
        *("--context", str(context)),
        *("--prefill-tokens", str(_prefill_tokens(context))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise CompileError(f"{_cause(done.returncode)}\n{_tail(done.stderr)}".rstrip(), where=model)
    if not library.is_file():
        raise CompileError("the compiler ended well, but left no library", where=library)


def _prefill_tokens(context: int) -> int:
    return min(PREFILL_TOKENS, context)


def _cause(code: int) -> str:
    if code < 0:
        return f"the compiler was killed by {signal.Signals(-code).name}"
    return f"the compiler failed with exit code {code}"


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
