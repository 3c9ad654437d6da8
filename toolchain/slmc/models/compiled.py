"""`model.json` of a decoder compiled by the tvm backend: what the folder holds.

The backend writes it, the runner reads it. The weight file tells the rest itself.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc.errors import RunnerError
from slmc.names import Activations, Bits
from slmc.strict import Strict, read_json, write_json

MANIFEST = "model.json"
WEIGHTS = "model.slm"
_SYSTEMS = {"linux": "-linux-gnu", "darwin": "-apple-macosx"}
_MACHINES = {"x86_64": ("x86_64",), "amd64": ("x86_64",), "aarch64": ("aarch64",), "arm64": ("arm64", "aarch64")}

Count = Annotated[int, Field(gt=0)]
RelativePath = Annotated[str, Field(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Library(Strict):
    """The native library for one system."""

    path: RelativePath = Field(description="inside the folder")
    triple: str
    sha256: Sha256
    kernels: tuple[str, ...] = Field(description="CPU levels that it has kernels for, the best first")


class CompiledDecoder(Strict):
    slmc_tvm: Literal[2] = 2
    libraries: Annotated[tuple[Library, ...], Field(min_length=1)]
    weights_sha256: Sha256 = Field(description="as the weight file's header has it")
    activations: Activations
    bits: tuple[Bits, ...] = Field(description="of the matrices' codes: each width that there is")
    vocab_size: Count
    context: Count
    versions: dict[str, str]

    @property
    def precision(self) -> str:
        """Of the weights."""
        return " and ".join(f"int{bits}" for bits in self.bits)


def write_compiled(folder: Path, compiled: CompiledDecoder) -> None:
    write_json(compiled, folder / MANIFEST)


def read_compiled(folder: Path) -> CompiledDecoder:
    """Raises RunnerError where the folder is no compiled decoder of this version."""
    return read_json(CompiledDecoder, folder / MANIFEST, RunnerError, "a compiled model")


def library_here(compiled: CompiledDecoder) -> Library | None:
    """The artifact's library for this machine; None where it was built for others alone."""
    machines = _MACHINES.get(platform.machine().lower(), ())
    system = _SYSTEMS.get(sys.platform, "-none")
    for library in compiled.libraries:
        if any(library.triple.startswith(machine + system) for machine in machines):
            return library
    return None
