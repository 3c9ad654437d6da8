"""What closes a finished result: `.stage.json`, which names all that went into it and every file with its digest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from slmc import digest
from slmc.errors import StoreError
from slmc.strict import Strict, parse

SEAL = ".stage.json"
SCHEMA: Literal[1] = 1
_OUTWARD = re.compile(r"[\\\x00]|\A/|\A[A-Za-z]:")
"""In a name, what leads out of its folder on one system or another."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def key_of(stage: str, inputs: Mapping[str, object]) -> str:
    """A stage's identity: the digest of all that decides its result."""
    return digest.of_value({"stage": stage, "schema": SCHEMA, "inputs": dict(inputs)})


class Seal(Strict):
    """`.stage.json`, the same in a local folder and in a shared store."""

    version: Literal[1] = Field(default=SCHEMA, alias="schema")
    stage: str
    inputs: dict[str, JsonValue]
    files: dict[str, Digest]
    """By the path below the result's folder, with forward slashes."""
    seconds: float
    """What making it took."""

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, Digest]) -> dict[str, Digest]:
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
        for name in files:
            outward = _OUTWARD.search(name) or {"", ".", ".."} & set(name.split("/"))
            if outward or name in folders or name == SEAL:
                raise ValueError(f"{name!r} is no name of a file below the result's folder")
        return files

    def text(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True)


def parse_seal(text: bytes, where: object) -> Seal:
    """Raises StoreError for anything but a seal."""
    try:
        raw: object = json.loads(text)
    except ValueError as error:
        raise StoreError(f"not JSON: {error}", where=where) from None
    return parse(Seal, raw, where, StoreError)


def seal(folder: Path, stage: str, inputs: Mapping[str, object], seconds: float) -> None:
    """Close a folder that is complete."""
    raw = {"schema": SCHEMA, "stage": stage, "inputs": dict(inputs), "seconds": seconds}
    closed = parse(Seal, raw | {"files": digest.of_folder(folder)}, folder, StoreError)
    (folder / SEAL).write_text(closed.text(), encoding="utf-8")
