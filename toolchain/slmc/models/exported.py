"""`model.json` of a decoder exported by the executorch backend: what the folder holds.

The backend writes it, the runner reads it. `model.pte` is ExecuTorch's own format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc.errors import RunnerError
from slmc.names import DelegateName
from slmc.strict import Strict, read_json, write_json

MANIFEST = "model.json"
PROGRAM = "model.pte"
FOUNDATION = Path("foundation.ptd")
"""Weights that programs of several adapters share."""

Count = Annotated[int, Field(gt=0)]


class Delegation(Strict):
    """What a delegate took over of one call of `forward`."""

    delegate: DelegateName
    graphs: Count = Field(description="that the delegate runs")
    outside: dict[str, Count] = Field(description="operators outside the delegate, by name")
    unexpected: dict[str, Count] = Field(description="those of them that the delegate does not leave out on purpose")


class ExportedDecoder(Strict):
    slmc_executorch: Literal[2] = 2
    program_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    foundation_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="null where the program has all weights in it"
    )
    delegation: Delegation
    one_token: bool = Field(description="`forward` takes one token a call")
    vocab_size: Count
    context: Count
    versions: dict[str, str]


def write_exported(folder: Path, exported: ExportedDecoder) -> None:
    write_json(exported, folder / MANIFEST)


def read_exported(folder: Path) -> ExportedDecoder:
    """Raises RunnerError where the folder is no exported decoder of this version."""
    return read_json(ExportedDecoder, folder / MANIFEST, RunnerError, "an exported model")
