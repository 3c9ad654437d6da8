"""Read a quantized checkpoint: what backends re-pack, and what the torch rung dequantizes."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from slmc import digest
from slmc.architecture import Architecture, TensorSpec
from slmc.artifacts import QuantizedCheckpoint
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.packed import packed_name, scale_name
from slmc.checkpoint.reader import TensorReader, check_packed, check_tensor, content_digest, row_blocks
from slmc.checkpoint.unmerged import adapter_beside
from slmc.config_json import parse_architecture, read_config
from slmc.errors import CheckpointError
from slmc.imported import CONFIG_KEY
from slmc.quant import disk
from slmc.quant.packing import Codes, unpack
from slmc.quant.schemes import SCHEMES, Scheme, are_scales, dequantize
from slmc.quant.table import TABLE_FILE, QuantizationTable, read_table


def open_quantized(folder: Path) -> QuantizedCheckpoint:
    """Check the folder's structure: every tensor there, every scale a positive bf16; digest its content.

    Raises CheckpointError naming the file, key or tensor.
    """
    with QuantizedReader(folder) as reader:
        reader.check()
        content = {"checkpoint": content_digest(folder), "table": digest.of_file(folder / TABLE_FILE)}
        adapter = adapter_beside(folder)
        if adapter is not None:
            content["adapter"] = digest.of_value(digest.of_folder(adapter))
        return QuantizedCheckpoint(folder, reader.architecture, digest.of_value(content))


class QuantizedReader:
    """The tensors of a quantized checkpoint, by their names in the architecture. A context manager."""

    architecture: Architecture
    table: QuantizationTable
    group_size: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.architecture = _read_architecture(folder)
        self.table = read_table(folder)
        self.group_size = SCHEMES[self.table.scheme].group_size
        self._specs = {spec.name: spec for spec in self.architecture.tensors()}
        self._schemes = {row.name: SCHEMES[row.scheme] for row in self.table.tensors if row.scheme is not None}
        self._bits = disk.packed_bits(self._schemes.values())
        self._tensors = TensorReader(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensors.__exit__(kind, error, trace)

    def is_quantized(self, name: str) -> bool:
        """False for a tensor that is kept as it was. Raises KeyError for a name the architecture doesn't have."""
        return self._specs[name].name in self._schemes

    def scheme(self, name: str) -> Scheme:
        """Of a quantized tensor. Raises KeyError for any other."""
        return self._schemes[name]

    def codes(self, name: str, start: int, stop: int) -> Codes:
        """Rows [start, stop) of a quantized tensor: int8 [rows, columns], within its scheme."""
        packed = self._tensors.stored_rows(packed_name(name), start, stop)
        return unpack(packed.view(np.int32), self._bits)

    def scales(self, name: str, start: int, stop: int) -> Float32:
        """Rows [start, stop) of its scales: float32 [rows, columns / group], positive and bf16 each."""
        return self._tensors.rows(scale_name(name), start, stop)

    def plain(self, name: str) -> Float32:
        """A tensor that is kept as it was, as float32."""
        return self._tensors.array(name)

    def dequantized(self, name: str) -> Float32:
        """Any tensor as float32: codes times scales, exactly, or what is kept."""
        if not self.is_quantized(name):
            return self.plain(name)
        shape = self._specs[name].shape
        weights = np.empty(shape, np.float32)
        for start, stop in row_blocks(shape):
            weights[start:stop] = dequantize(self.codes(name, start, stop), self.scales(name, start, stop))
        return weights

    def check(self) -> None:
        """Raises CheckpointError naming what is missing, left over or damaged."""
        listed = [(row.name, row.shape) for row in self.table.tensors]
        if listed != [(spec.name, spec.shape) for spec in self._specs.values()]:
            raise CheckpointError("the table does not list the architecture's tensors", where=self.folder / TABLE_FILE)
        self._check_table()
        stored: set[str] = set()
        for name, spec in self._specs.items():
            if name in self._schemes:
                stored |= self._check_quantized(spec)
            else:
                check_tensor(self._tensors, spec)
                stored.add(name)
        extra = sorted(set(self._tensors.names) - stored)
        if extra:
            raise CheckpointError(f"{extra[0]} belongs to no tensor of the table", where=self.folder)

    def _check_table(self) -> None:
        """The table and config.json tell the same, and all groups are of one size."""
        sizes = {scheme.group_size for scheme in (SCHEMES[self.table.scheme], *self._schemes.values())}
        if self.table.tied != self.architecture.tied or sizes != {self.table.group_size}:
            raise CheckpointError("the table's head or scheme is not config.json's", where=self.folder / TABLE_FILE)
        found = read_config(self.folder)[CONFIG_KEY]
        if found != disk.quantization_config(self.table):
            raise CheckpointError(
                "the table tells of other schemes than config.json",
                where=f"{self.folder / 'config.json'}: {CONFIG_KEY}",
                expected=json.dumps(disk.quantization_config(self.table)),
            )

    def _check_quantized(self, spec: TensorSpec) -> set[str]:
        stored = check_packed(self._tensors, spec, self._bits, self.group_size, disk.SCALES)
        for start, stop in row_blocks((spec.shape[0], spec.shape[1] // self.group_size)):
            scales = self.scales(spec.name, start, stop)
            if not are_scales(scales):
                raise CheckpointError(
                    f"{scale_name(spec.name)} holds a scale that is not a positive bf16", where=self.folder
                )
        self._check_codes(spec)
        return stored

    def _check_codes(self, spec: TensorSpec) -> None:
        """Where they could be wider than their scheme."""
        scheme = self._schemes[spec.name]
        if scheme.bits == self._bits:
            return
        for start, stop in row_blocks(spec.shape):
            codes = self.codes(spec.name, start, stop)
            if codes.min() < scheme.lowest or codes.max() > scheme.highest:
                raise CheckpointError(f"{packed_name(spec.name)} holds codes outside {scheme.name}", where=self.folder)


def _read_architecture(folder: Path) -> Architecture:
    """The decoder's architecture, from a config.json that must carry our format's quantization_config."""
    path = folder / "config.json"
    config = read_config(folder)
    quantization = config.pop(CONFIG_KEY, None)
    if not isinstance(quantization, dict) or quantization.get("format") != "pack-quantized":
        raise CheckpointError(
            "not a quantized checkpoint of ours",
            where=f"{path}: {CONFIG_KEY}",
            expected="compressed-tensors' pack-quantized format, as slmc writes it",
        )
    return parse_architecture(config, path)
