"""`manifest.json`: what a bundle is, what it was made from, and what was run. Typed and versioned."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, field_validator

from slmc import digest
from slmc.errors import BundleError
from slmc.models.exported import Delegation
from slmc.names import BackendName, DelegateName, TargetName
from slmc.quant.table import TensorRow
from slmc.recipe import Recipe
from slmc.strict import Strict, parse

MANIFEST = "manifest.json"
NOT_RUN = "not run on a device"


class FileEntry(Strict):
    bytes: int
    sha256: str


class Quantized(Strict):
    scheme: str
    method: str
    bits: float = Field(description="mean over all parameters")
    tensors: tuple[TensorRow, ...]


class MemoryFit(Strict):
    device_class: str
    process_mib: int
    share: float = Field(description="foretold memory over what one process may use")
    source: str


class Memory(Strict):
    """Bytes, foretold from the architecture; what a device really used stands in its results."""

    weights: int
    kv_cache: int
    activations: int
    copies: int = Field(default=0, description="of weights that the runtime holds twice")
    fits: tuple[MemoryFit, ...]


class BuiltWith(Strict):
    slmc: str
    code: str = Field(description="digest of slmc's own sources")
    tools: dict[str, str]


class Origins(Strict):
    """Digests of all that went in."""

    recipe: str
    target: str
    data: dict[str, str]
    stages: dict[str, str] = Field(description="key of each stage in the store")


class RunRecord(Strict):
    """One rung that was run on this bundle or on what it was made from."""

    rung: str
    runtime: str
    device: str
    verdict: str


class Validation(Strict):
    verdict: Literal["pass", "fail", "unclear"]
    runs: tuple[RunRecord, ...]


class Answered(Strict):
    """What comes of a threshold on some items."""

    items: int
    coverage: float = Field(description="share of the items that are answered")
    error: float | None = Field(description="share of wrong labels among the answered; null where none is answered")


class Abstain(Strict):
    """When not to trust the label: fitted to the quantized model's answers to the recipe's calibration items."""

    threshold: float | None = Field(
        description="abstain where the chosen label's probability among all labels is below; null: always abstain"
    )
    max_error: float = Field(description="the recipe's: highest share of wrong labels among the answered items")
    fitted: Answered
    measured: dict[str, Answered] = Field(description="with this threshold on the evaluation items, by rung")


class Confidence(Strict):
    """How far the probabilities of a classify task can be believed."""

    calibration_error: dict[str, float] = Field(
        description="expected calibration error of the chosen label's probability on the evaluation items, by rung"
    )
    abstain: Abstain | None = Field(description="null where the recipe asks for no threshold")


class Manifest(Strict):
    schema_version: Literal[1] = 1
    name: str
    version: str
    target: TargetName
    backend: BackendName
    minimum_os: str
    context: int
    delegate: DelegateName | None = Field(
        default=None, description="what runs the matrix products, where a backend has several"
    )
    library_by: Literal["slmc", "mlc_llm"] | None = Field(
        default=None, description="backend mlc: what compiled the model library"
    )
    delegation: Delegation | None = Field(default=None, description="of backend executorch; null for any other")
    artifact: str = Field(description="folder that the backend's runner loads")
    tokenizer: str = Field(description="folder with tokenizer.json and prompt.json")
    task: str | None = Field(
        default=None,
        description="file with tokenizer, prompt and labels, compiled; null where there is none",
    )
    prefix: str | None = Field(
        default=None, description="file with the keys and values of what every prompt begins with; backend tvm"
    )
    labels: tuple[str, ...] = ()
    files: dict[str, FileEntry] = Field(description="every file of the bundle but this one")
    origins: Origins
    built_with: BuiltWith
    quantization: Quantized
    memory: Memory
    recipe: Recipe
    device: str = NOT_RUN
    validation: Validation | None = None
    confidence: Confidence | None = Field(default=None, description="null for other tasks, and where it was not run")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"{name!r} leaves the bundle")
        return files

    @property
    def digest(self) -> str:
        """Names the bundle: its files and what they came from, but not what was run since."""
        content = self.model_dump(mode="json", exclude={"validation", "confidence", "device"})
        return digest.of_value(content)

    @property
    def size(self) -> int:
        return sum(entry.bytes for entry in self.files.values())


def list_files(folder: Path) -> dict[str, FileEntry]:
    found = {name: found for name, found in digest.of_folder(folder).items() if name != MANIFEST}
    return {name: FileEntry(bytes=(folder / name).stat().st_size, sha256=sha) for name, sha in found.items()}


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Same manifest, same bytes; the file changes at once or not at all."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    part = folder / f".{MANIFEST}.part"
    part.write_text(text + "\n", encoding="utf-8")
    part.rename(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError("no manifest.json", where=folder, expected="a bundle folder made by slmc build") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"manifest.json can't be read: {error}", where=path) from None
    return parse(Manifest, raw, path, BundleError)
