"""Put a compiled model, its tokenizer and its golden file into one folder, under a manifest."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc.artifacts import CompiledModel, QuantizedCheckpoint
from slmc.bundle.golden import GoldenItem, write_golden
from slmc.bundle.manifest import Manifest, list_files, write_manifest
from slmc.errors import BundleError
from slmc.prompt import TOKENIZER_FILE, Codec, write_format

_TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


@dataclass(frozen=True)
class Content:
    """What goes into a bundle."""

    compiled: CompiledModel
    quantized: QuantizedCheckpoint
    codec: Codec
    golden: Sequence[GoldenItem]
    task: Path | None
    """Folder with the task file and what goes with it."""
    guide: str | None
    """README.md, for whoever puts the bundle into an app."""


def pack(content: Content, manifest: Manifest, folder: Path) -> None:
    """Write the bundle into an empty folder; the manifest's `files` are filled in here."""
    shutil.copytree(content.compiled.folder, folder / manifest.artifact, ignore=shutil.ignore_patterns(".stage.json"))
    _write_tokenizer(content, folder / manifest.tokenizer)
    write_golden(content.golden, folder)
    if content.task is not None:
        shutil.copytree(content.task, folder, ignore=shutil.ignore_patterns(".stage.json"), dirs_exist_ok=True)
    if content.guide is not None:
        (folder / "README.md").write_text(content.guide, encoding="utf-8")
    write_manifest(manifest.model_copy(update={"files": list_files(folder)}), folder)


def _write_tokenizer(content: Content, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in _TOKENIZER_FILES:
        source = content.quantized.folder / name
        if source.is_file():
            shutil.copyfile(source, folder / name)
    write_format(content.codec.format, folder)


def deliver(stored: Path, destination: Path) -> None:
    """Copy a stored bundle to where people look for it; the old one stays until the new one is whole."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    new = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
    old = new.with_name(new.name + ".old")
    try:
        shutil.copytree(stored, new, ignore=shutil.ignore_patterns(".stage.json"))
        if destination.exists():
            if not (destination / "manifest.json").is_file():
                raise BundleError(
                    "a folder that is no bundle stands where the bundle goes",
                    where=destination,
                    todo="move it away, or name another with --out",
                )
            destination.rename(old)
        new.rename(destination)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
