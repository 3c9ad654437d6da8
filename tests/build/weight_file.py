"""A weight file changed by hand, its tensors found by the document's offsets and not by the reader under test."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slmc.models.compiled import WEIGHTS, read_compiled, write_compiled

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """Of a matrix's parts."""

    offset: int
    codes: tuple[int, int]
    """Rows of blocks, and bytes of each."""
    scales: tuple[int, int, int]
    """Rows of blocks, groups, 8; bfloat16."""


def place_of(folder: Path, tensor: str) -> Place:
    whole = (folder / WEIGHTS).read_bytes()
    [group] = struct.unpack_from("<I", whole, 96)
    at = whole.index(b"\0" + tensor.encode() + b"\0") + 1
    kind, rows, columns, _, offset, _ = struct.unpack_from("<IIIIQQ", whole, at + 48)
    bits = {0: 32, 1: 4, 2: 8}[kind]
    return Place(offset, (rows // 8, columns * bits), (rows // 8, columns // group, 8))


def change_matrix(folder: Path, tensor: str, change: Callable[[Bytes, npt.NDArray[np.uint16]], None]) -> None:
    """`change` gets the matrix's codes and scales to change in place; the digests are set right again."""
    path, place = folder / WEIGHTS, place_of(folder, tensor)
    file = np.memmap(path, np.uint8, mode="r+")
    end = place.offset + int(np.prod(place.codes))
    scales = file[end : end + int(np.prod(place.scales)) * 2].view(np.uint16)
    change(file[place.offset : end].reshape(place.codes), scales.reshape(place.scales))
    file.flush()
    del file
    reseal(folder)


def reseal(folder: Path) -> None:
    """Give a changed weight file the digests that it should have."""
    whole = (folder / WEIGHTS).read_bytes()
    sealed = hashlib.sha256(whole[64:]).digest()
    (folder / WEIGHTS).write_bytes(whole[:32] + sealed + whole[64:])
    write_compiled(folder, read_compiled(folder).model_copy(update={"weights_sha256": sealed.hex()}))
