"""What flows through a build: each stage takes the type before it and returns the next.

Each one is a folder, complete and read-only, with the digest of all that went into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmc.architecture import Architecture


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face model folder, its config parsed and its tensors checked against it."""

    folder: Path
    architecture: Architecture
    digest: str


@dataclass(frozen=True)
class MergedCheckpoint:
    """A Hugging Face model folder with the adapter in its weights; the base itself where there is none.

    Tensors that the adapter touches are float32, the others as the base has them.
    """

    folder: Path
    architecture: Architecture
    digest: str


@dataclass(frozen=True)
class QuantizedCheckpoint:
    """A Hugging Face model folder in the compressed-tensors pack-quantized format.

    The one truth that every backend re-packs: signed codes, one bf16 scale a group.
    """

    folder: Path
    architecture: Architecture
    digest: str


@dataclass(frozen=True)
class CompiledModel:
    """What a backend made: files for one target that a runner of that backend loads."""

    folder: Path
    backend: str
    target: str
    digest: str
