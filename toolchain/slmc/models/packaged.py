"""`model.json` of a decoder packaged by the coreml backend: what the folder holds.

The backend writes it, the runner reads it. `model.mlpackage` is Apple's own format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc import digest
from slmc.errors import RunnerError
from slmc.strict import Strict, read_json, write_json

MANIFEST = "model.json"
PACKAGE = "model.mlpackage"
PREFILL, DECODE, FULL_LOGITS = "prefill", "decode", "full_logits"
"""Names of its functions."""

Count = Annotated[int, Field(gt=0)]


class PackagedDecoder(Strict):
    slmc_coreml: Literal[1] = 1
    package_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="of its files' digests")
    delegate: Literal["gpu", "ane"] = Field(description="the unit that it is laid out for")
    vocab_size: Count
    context: Count
    chunk: Count = Field(description="tokens of one call of prefill")
    rounded_scales: Annotated[int, Field(ge=0)] = Field(
        default=0, description="scales below 2^-14, of which fp16 holds fewer bits"
    )
    versions: dict[str, str]


def package_digest(package: Path) -> str:
    return digest.of_value(digest.of_folder(package))


def write_packaged(folder: Path, packaged: PackagedDecoder) -> None:
    write_json(packaged, folder / MANIFEST)


def read_packaged(folder: Path) -> PackagedDecoder:
    """Raises RunnerError where the folder is no packaged decoder of this version."""
    return read_json(PackagedDecoder, folder / MANIFEST, RunnerError, "a packaged model")
