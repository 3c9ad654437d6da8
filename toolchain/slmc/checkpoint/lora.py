"""Merge a LoRA adapter into its base, tensor by tensor, in constant memory.

W + scaling · B A, added up in float64 and rounded once. What is more than that (DoRA, biases, other
tuners) goes through peft itself, see `peft_merge`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slmc.architecture import EMBEDDING
from slmc.artifacts import Checkpoint
from slmc.checkpoint.adapter import Change, LowRank, read_changes, told_as_adapter_errors, weights_path
from slmc.checkpoint.adapter_config import read_adapter_config
from slmc.checkpoint.dtypes import NUMPY, Float32
from slmc.checkpoint.merged import stored_name, write_merged
from slmc.checkpoint.peft_merge import merge_through_peft
from slmc.checkpoint.reader import TensorReader, row_blocks
from slmc.console import Advance
from slmc.errors import AdapterError

Float64 = npt.NDArray[np.float64]


def merge(base: Checkpoint, adapter: Path, out: Path, advance: Advance) -> None:
    """Write the base with the adapter in it into the empty folder `out`. `advance` counts weights.

    Raises AdapterError naming the key that does not fit, CheckpointError for a damaged base.
    """
    config = read_adapter_config(adapter)
    weights = weights_path(adapter)
    if config.needs_peft:
        merge_through_peft(base, adapter, config.needs_peft, out, advance)
        return
    with TensorReader(base.folder) as base_reader, _open_adapter(weights) as adapter_reader:
        changes = read_changes(adapter_reader, config, base.architecture)
        write_merged(base, _Merged(base_reader, adapter_reader, changes), out, advance)


def _open_adapter(weights: Path) -> TensorReader:
    with told_as_adapter_errors():
        return TensorReader(weights)


class _Merged:
    """Base and adapter added up when rows are asked for; a `MergedTensors`."""

    def __init__(self, base: TensorReader, adapter: TensorReader, changes: dict[str, Change]) -> None:
        self._base = base
        self._adapter = adapter
        self._changes = {}
        # Head and embedding are compared block by block, hence two.
        self._halves = lru_cache(maxsize=2)(self._read_halves)
        for name, change in changes.items():
            if change.replacement and self._same_as_base(name, change.replacement):
                change = Change(None, change.low_rank)
            if change != Change():
                self._changes[name] = change

    def changed(self, name: str) -> bool:
        return name in self._changes

    def rows(self, name: str, start: int, stop: int) -> Float32:
        change = self._changes.get(name, Change())
        if change.replacement:
            with told_as_adapter_errors():
                weights = self._adapter.rows(change.replacement, start, stop)
        else:
            weights = self._base.rows(stored_name(self._base, name), start, stop)
        if change.low_rank is None:
            return weights
        return _rounded(weights + self._delta(name, change.low_rank, start, stop), name)

    def _delta(self, name: str, pair: LowRank, start: int, stop: int) -> Float64:
        """Rows of what the pair adds to a tensor, [rows, columns]."""
        a, b = self._halves(pair)
        if name == EMBEDDING:
            return np.float64(pair.scaling) * (a[:, start:stop].T @ b.T)
        return np.float64(pair.scaling) * (b[start:stop] @ a)

    def _read_halves(self, pair: LowRank) -> tuple[Float64, Float64]:
        """A [rank, columns] and B [rows, rank]; an embedding's rows are its columns here."""
        with told_as_adapter_errors():
            return self._adapter.array(pair.a).astype(np.float64), self._adapter.array(pair.b).astype(np.float64)

    def _same_as_base(self, name: str, key: str) -> bool:
        """A whole tensor that is only the base's own, in the precision that the adapter has it in."""
        stored = stored_name(self._base, name)
        with told_as_adapter_errors():
            dtype = NUMPY[self._adapter.dtype(key)]
        for start, stop in row_blocks(self._base.shape(stored)):
            with told_as_adapter_errors():
                kept = self._adapter.stored_rows(key, start, stop)
            if not np.array_equal(self._base.rows(stored, start, stop).astype(dtype), kept):
                return False
        return True


def _rounded(weights: Float64, name: str) -> Float32:
    with np.errstate(over="ignore"):
        rounded = weights.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise AdapterError(f"{name} is no longer finite once the adapter is merged", expected="finite weights")
    return rounded
