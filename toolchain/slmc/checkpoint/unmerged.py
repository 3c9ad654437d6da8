"""An adapter left beside its base in full precision: W x + B (A x), its matrices as peft saved them.

A quantized checkpoint with one has it in the folder `adapter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmc.architecture import Architecture
from slmc.checkpoint.adapter import adaptable, read_changes, told_as_adapter_errors, weights_path
from slmc.checkpoint.adapter_config import read_adapter_config
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import TensorReader
from slmc.errors import AdapterError

FOLDER = "adapter"


@dataclass(frozen=True)
class Pair:
    a: Float32
    """[rank, columns]"""
    b: Float32
    """[rows, rank], the adapter's scaling in it."""


def adapter_beside(checkpoint: Path) -> Path | None:
    folder = checkpoint / FOLDER
    return folder if folder.is_dir() else None


def read_pairs(adapter: Path, architecture: Architecture) -> dict[str, Pair]:
    """By the linear's name. Raises AdapterError for what can only be merged."""
    config = read_adapter_config(adapter)
    if config.needs_peft:
        raise _error(f"an adapter with {config.needs_peft} can't be left unmerged", adapter)
    specs = adaptable(architecture)
    with told_as_adapter_errors(), TensorReader(weights_path(adapter)) as reader:
        pairs = {}
        for name, change in read_changes(reader, config, architecture).items():
            if change.replacement is not None or change.low_rank is None or specs[name].role != "linear":
                raise _error(f"the adapter changes {name}, which can't be left unmerged", adapter)
            pair = change.low_rank
            a, b = (reader.array(key).astype(np.float32) for key in (pair.a, pair.b))
            pairs[name] = Pair(a, (np.float32(pair.scaling) * b).astype(np.float32))
    return pairs


def _error(what: str, adapter: Path) -> AdapterError:
    return AdapterError(
        what, where=adapter, expected="LoRA pairs for linears alone", todo="merge it: give it as the recipe's adapter"
    )
