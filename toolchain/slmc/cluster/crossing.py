"""Values from machine to machine: as they are, but for the store and paths into it, which each machine has of its own.

A path into a result becomes the result's name, and is fetched from the shared store where it arrives; one into the
Hugging Face cache becomes a model's name, and is fetched from the hub.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from slmc.sources import fetch
from slmc.store import Store

Named = tuple[str, str]
"""Stage and key of a result."""


@dataclass(frozen=True)
class Crossing:
    """One machine's side of it."""

    store: Store
    fetching: bool
    """What arrives is fetched at once: a worker reads it, the driver only hands most of it on."""
    homes: Mapping[Named, Path] = field(default_factory=dict)
    """Results that are also a folder of this machine's own: a recipe's."""

    def pack(self, value: object) -> bytes:
        buffer = io.BytesIO()
        _Packer(buffer, self).dump(value)
        return buffer.getvalue()

    def unpack(self, packed: bytes) -> Any:
        """Raises StoreError or CheckpointError where something can't be fetched."""
        return _Unpacker(io.BytesIO(packed), self).load()

    def name(self, path: Path) -> tuple[str, ...] | None:
        """What a path is called on every machine; None for one that is left as it is."""
        inside = _inside(path, self.store.root)
        if inside is not None and len(inside) >= 2:
            return ("result", *inside)
        for named, home in self.homes.items():
            inside = _inside(path, home)
            if inside is not None:
                return ("result", *named, *inside)
        inside = _inside(path, _hub_cache())
        if inside is not None and len(inside) >= 3 and inside[1] == "snapshots":
            folder, _, revision, *rest = inside
            return ("hub", folder.removeprefix("models--").replace("--", "/"), revision, *rest)
        return None

    def path(self, name: tuple[str, ...]) -> Path:
        """The path of that name on this machine."""
        kind, first, second, *rest = name
        if kind == "hub":
            if self.fetching:
                return fetch(first, second).joinpath(*rest)
            return _hub_cache().joinpath(f"models--{first.replace('/', '--')}", "snapshots", second, *rest)
        home = self.homes.get((first, second))
        if home is not None:
            return home.joinpath(*rest)
        folder = self.store.root / first / second
        return (self.store.bring(folder) if self.fetching else folder).joinpath(*rest)


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, crossing: Crossing) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._crossing = crossing

    def persistent_id(self, value: object) -> tuple[str, ...] | None:
        if isinstance(value, Store):
            return ("store",)
        return self._crossing.name(value) if isinstance(value, Path) else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, crossing: Crossing) -> None:
        super().__init__(file)
        self._store = crossing.store
        self._path = cache(crossing.path)

    def persistent_load(self, name: tuple[str, ...]) -> object:
        return self._store if name == ("store",) else self._path(name)


def _inside(path: Path, root: Path) -> tuple[str, ...] | None:
    for whole in (root.absolute(), root.resolve()):
        if path.absolute().is_relative_to(whole):
            return path.absolute().relative_to(whole).parts
    return None


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
