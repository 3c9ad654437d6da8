"""`model.json` of a decoder packaged by the coreml backend: what the folder holds.

The backend writes it, the runner reads it. `model.mlpackage` is Apple's own format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc import digest
from slmc.errors import RunnerError
from slmc.strict import Strict, parse

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
    versions: dict[str, str]


def package_digest(package: Path) -> str:
    return digest.of_value(digest.of_folder(package))


def write_packaged(folder: Path, packaged: PackagedDecoder) -> None:
    (folder / MANIFEST).write_text(packaged.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_packaged(folder: Path) -> PackagedDecoder:
    """Raises RunnerError where the folder is no packaged decoder of this version."""
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunnerError(f"not a packaged model: {error}", where=path) from None
    return parse(PackagedDecoder, raw, path, RunnerError)
