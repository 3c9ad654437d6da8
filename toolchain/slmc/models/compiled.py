"""`model.json` of a decoder compiled by TVM: what an engine must know to run it.

The same folder holds the library and `weights.safetensors`; the backend writes it, the runner reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc.errors import RunnerError
from slmc.names import Bits
from slmc.strict import Strict, parse

MANIFEST = "model.json"
WEIGHTS = "weights.safetensors"
ALIGNMENT = 64
"""In bytes; the compiled kernels take every tensor to begin at a multiple of it."""

Kernels = Literal["vnni", "avx2", "portable"]
CACHE_DTYPES: dict[Kernels, Literal["float16", "float32"]] = {
    "vnni": "float16",
    "avx2": "float16",
    "portable": "float32",
}
"""Of keys and values. Without F16C a float16 costs a call to widen, and the portable kernels are the exact ones."""

Count = Annotated[int, Field(gt=0)]


class Buffer(Strict):
    """A tensor that the caller owns."""

    shape: tuple[Count, ...]
    dtype: Literal["float16", "float32"]


class CompiledDecoder(Strict):
    """Functions of the library: `prefill(ids, position, keys, values, parameters)`, and `decode` for one id.

    ids int32 [n], n at most `prefill_tokens`; position int32 [1], where they begin; both caches are
    written in place; the result is float32 [1, at least vocab_size], logits after the last id.
    """

    slmc_tvm: Literal[1] = 1
    library: Annotated[str, Field(pattern=r"^model\.(so|dylib|dll)$")]
    library_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    triple: str
    cpu: str
    cpu_features: tuple[str, ...] = Field(description="that the library uses, as Linux names them")
    kernels: Kernels
    bits: tuple[Bits, ...] = Field(description="of the matrices' codes: each width that there is")
    vocab_size: Count
    context: Count
    prefill_tokens: Count
    keys: Buffer
    values: Buffer
    parameters: tuple[str, ...] = Field(description="names in weights.safetensors, in the functions' order")
    versions: dict[str, str]


def write_compiled(folder: Path, compiled: CompiledDecoder) -> None:
    (folder / MANIFEST).write_text(compiled.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_compiled(folder: Path) -> CompiledDecoder:
    """Raises RunnerError where the folder is no compiled decoder of this version."""
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunnerError(f"not a compiled model: {error}", where=path) from None
    return parse(CompiledDecoder, raw, path, RunnerError)
