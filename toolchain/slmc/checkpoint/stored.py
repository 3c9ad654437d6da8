"""Where each tensor of a folder's safetensors files lies: their headers, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from slmc.checkpoint.folders import read_json_object
from slmc.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's bytes: `size` of them from `offset` in `file`, row-major, little-endian."""

    file: Path
    dtype: str
    """As safetensors calls it: "BF16", "F32", ..."""
    shape: tuple[int, ...]
    offset: int
    size: int


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, one or several shards, and their index where there is one."""
    if (folder / INDEX).is_file():
        return [folder / INDEX, *sorted({folder / shard for shard in _weight_map(folder).values()})]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"weights only as {pickles[0]}, a pickle, which can run code when it is read",
            where=folder,
            expected=f"{SINGLE}, or shards named by {INDEX}",
            todo="save it again with safetensors (model.save_pretrained does)",
        )
    raise CheckpointError("no weights in the folder", where=folder, expected=f"{SINGLE} or {INDEX}")


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder's weights. Raises CheckpointError for a damaged header, index or shard."""
    if not (folder / INDEX).is_file():
        (single,) = weight_files(folder)
        return read_header(single)
    weight_map = _weight_map(folder)
    shards = {name: read_header(folder / name) for name in sorted(set(weight_map.values()))}
    found: dict[str, StoredTensor] = {}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(f"{name} is not in {shard}", where=folder / INDEX, expected="the shard that holds it")
        found[name] = shards[shard][name]
    for shard, tensors in shards.items():
        unnamed = sorted(set(tensors) - set(weight_map))
        if unnamed:
            raise CheckpointError(f"the index does not name {unnamed[0]}, which {shard} holds", where=folder / INDEX)
    return found


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file. The safetensors library checks the header first."""
    from safetensors import SafetensorError, safe_open

    try:
        # The library maps the file, reads the header and checks that it covers the file exactly.
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} is missing", where=path.parent) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path.name} is not a whole safetensors file: {error}",
            where=path,
            todo="copy or download it again",
        ) from None
    return dict(_entries(path, header, 8 + length))


def _entries(path: Path, header: Mapping[str, object], start: int) -> Iterator[tuple[str, StoredTensor]]:
    """Header entries, whose form the safetensors library has checked."""
    for name, entry in header.items():
        if name == "__metadata__" or not isinstance(entry, dict):
            continue
        begin, end = entry["data_offsets"]
        yield name, StoredTensor(path, str(entry["dtype"]), tuple(entry["shape"]), start + begin, end - begin)


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor name to shard, from the index. A shard is a file of this very folder."""
    path = folder / INDEX
    weight_map = read_json_object(path, CheckpointError).get("weight_map")
    if not _is_text_map(weight_map) or not weight_map:
        raise CheckpointError("no weight_map", where=path, expected='"weight_map": {tensor name: shard file}')
    for name, shard in weight_map.items():
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{name} lies in {shard!r}, which is not a safetensors file of this folder",
                where=f"{path}: weight_map",
                expected="a plain file name such as model-00001-of-00002.safetensors",
            )
    return weight_map


def _is_text_map(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())
