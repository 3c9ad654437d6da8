"""`model.json` of a decoder exported by the executorch backend: what the folder holds.

The backend writes it, the runner reads it. `model.pte` is ExecuTorch's own format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc.errors import RunnerError
from slmc.strict import Strict, parse

MANIFEST = "model.json"
PROGRAM = "model.pte"

Count = Annotated[int, Field(gt=0)]


class ExportedDecoder(Strict):
    slmc_executorch: Literal[1] = 1
    program_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    delegate: Literal["xnnpack"]
    delegated: Count = Field(description="graphs that the delegate runs in one call of forward")
    outside: dict[str, Count] = Field(description="operators outside the delegate in one call of forward, by name")
    vocab_size: Count
    context: Count
    versions: dict[str, str]


def write_exported(folder: Path, exported: ExportedDecoder) -> None:
    (folder / MANIFEST).write_text(exported.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_exported(folder: Path) -> ExportedDecoder:
    """Raises RunnerError where the folder is no exported decoder of this version."""
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunnerError(f"not an exported model: {error}", where=path) from None
    return parse(ExportedDecoder, raw, path, RunnerError)
