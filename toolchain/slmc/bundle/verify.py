"""Check a bundle against its own manifest: every file, every golden prompt's tokens."""

from __future__ import annotations

from pathlib import Path

from slmc.bundle.golden import read_golden
from slmc.bundle.manifest import FileEntry, Manifest, list_files, read_manifest
from slmc.errors import BundleError
from slmc.prompt import Codec


def verify(folder: Path) -> Manifest:
    """The manifest of an undamaged bundle. Raises BundleError naming the first thing that is wrong."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    check_prompts(folder, manifest)
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    found = list_files(folder)
    for name in sorted(found.keys() | manifest.files.keys()):
        problem = _problem(found.get(name), manifest.files.get(name))
        if problem:
            raise BundleError(
                f"{name} {problem}", where=folder, todo="take the bundle again from where it was built, or rebuild it"
            )


def _problem(found: FileEntry | None, listed: FileEntry | None) -> str | None:
    if found is None:
        return "is missing"
    if listed is None:
        return "is not in the manifest"
    if found.bytes != listed.bytes:
        return f"has {found.bytes} bytes, not {listed.bytes}"
    return None if found == listed else "was changed: its digest differs from the manifest's"


def check_prompts(folder: Path, manifest: Manifest) -> None:
    """The bundle's own tokenizer and prompt format must arrive at the golden ids."""
    codec = Codec.open(folder / manifest.tokenizer)
    if manifest.labels:
        codec.check_labels(manifest.labels)
    for item in read_golden(folder):
        text, ids = codec.prompt(item.fields)
        if text != item.prompt or tuple(ids) != item.input_ids:
            raise BundleError(
                f"golden prompt {item.id!r} reads differently: the prompt format or the tokenizer is another",
                where=folder / manifest.tokenizer,
                expected=f"{item.prompt!r} as {list(item.input_ids)}",
                todo="rebuild the bundle; a model answers only the prompt it was trained on",
            )
