"""`slmc inspect`: what is in a bundle or a quantized checkpoint: tensors, bits, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from slmc.bundle.manifest import MANIFEST, Manifest, read_manifest
from slmc.cli.common import as_json, megabytes, print_json
from slmc.console import out, table
from slmc.errors import InputError
from slmc.quant.table import TABLE_FILE, TensorRow, read_table


@click.command("inspect")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@as_json
def command(folder: Path, as_json: bool) -> None:
    """Show what is in FOLDER, a bundle or a quantized checkpoint."""
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        if as_json:
            print_json(manifest.model_dump(mode="json"))
        else:
            _show_bundle(manifest)
    elif (folder / TABLE_FILE).is_file():
        quantization = read_table(folder)
        if as_json:
            print_json(quantization.model_dump(mode="json"))
        else:
            _show_tensors(quantization.tensors)
    else:
        raise InputError(
            "neither a bundle nor a quantized checkpoint", where=folder, expected=f"{MANIFEST} or {TABLE_FILE} in it"
        )


def _show_bundle(manifest: Manifest) -> None:
    out.print(f"[bold]{manifest.name} {manifest.version}[/]  {manifest.target}, {manifest.backend}")
    quantized = manifest.quantization
    out.print(f"{quantized.scheme} by {quantized.method}, {quantized.bits:.2f} bits a weight")
    rows = table("file", "size")
    for name, entry in manifest.files.items():
        rows.add_row(name, megabytes(entry.bytes))
    out.print(rows)
    _show_tensors(quantized.tensors)


def _show_tensors(tensors: Sequence[TensorRow]) -> None:
    rows = table("tensor", "shape", "scheme", "bits", "relative error")
    for tensor in tensors:
        error = "" if tensor.relative_error is None else f"{tensor.relative_error:.4f}"
        shape = "×".join(str(extent) for extent in tensor.shape)
        kind = tensor.scheme or f"kept: {tensor.kept}"
        rows.add_row(tensor.name, shape, kind, f"{tensor.bits_per_weight:g}", error)
    out.print(rows)
