"""`model.json` of a decoder that the mlc backend wrote: what the folder holds.

The backend writes it, the runner reads it. The folder `model_id` and the library are MLC's own formats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slmc import digest
from slmc.errors import RunnerError
from slmc.models.compiled import RelativePath, Sha256
from slmc.strict import Strict, read_json, write_json

MANIFEST = "model.json"
WEIGHTS = "tensor-cache.json"
"""In the model's folder: lists its weight files."""
CHAT_CONFIG = "mlc-chat-config.json"
PACKAGE_CONFIG = "mlc-package-config.json"

Count = Annotated[int, Field(gt=0)]


class MlcDecoder(Strict):
    slmc_mlc: Literal[1] = 1
    model_id: str = Field(description="folder with weights, configuration and tokenizer, as MLC's engines take it")
    model_lib: str = Field(description="the name by which an app asks for the library")
    library: RelativePath = Field(description="inside the folder")
    library_sha256: Sha256
    library_by: Literal["slmc", "mlc_llm"] = Field(description="what compiled the library")
    weights_sha256: Sha256 = Field(description="of all weight files and their list")
    quantization: Literal["q4f16_1", "q4f32_1"] = Field(description="MLC's name for how weights are stored")
    rounded_scales: Annotated[int, Field(ge=0)] = Field(
        default=0, description="scales below 2^-14, of which fp16 holds fewer bits"
    )
    vocab_size: Count
    context: Count
    chunk: Count = Field(description="tokens that one call of prefill takes at most")
    versions: dict[str, str] = Field(description="of what compiled the library")


def weights_digest(folder: Path) -> str:
    """Of the weight files in a model's folder, and their list."""
    return digest.of_value(
        {n: sha for n, sha in digest.of_folder(folder).items() if n == WEIGHTS or n.endswith(".bin")}
    )


def write_mlc(folder: Path, decoder: MlcDecoder) -> None:
    write_json(decoder, folder / MANIFEST)


def read_mlc(folder: Path) -> MlcDecoder:
    """Raises RunnerError where the folder is no such decoder of this version."""
    return read_json(MlcDecoder, folder / MANIFEST, RunnerError, "a model for MLC")
