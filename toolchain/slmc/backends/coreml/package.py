"""Functions and weights into a saved .mlpackage, without coremltools' passes: what was written is what is saved."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from coremltools.converters.mil.backend.mil.load import CoreMLProtoExporter, MILProtoExporter
from coremltools.converters.mil.mil import Function, Program

from slmc.backends.coreml.weights import Weights

SPECIFICATION = 9
"""iOS 18 and macOS 15."""
_AUTHOR = "com.apple.CoreML"


def save(functions: Mapping[str, Function], weights: Weights, metadata: Mapping[str, str], out: Path) -> None:
    """Write `out`, a .mlpackage: the same functions and weights give the same bytes. The first is its default."""
    program = Program()
    for name, function in functions.items():
        program.add_function(name, function)
    program.default_function_name = next(iter(functions))
    program.export_as_multifunction = True
    program.skip_all_passes = True
    exporter = MILProtoExporter(program, str(weights.path.parent), SPECIFICATION)
    exporter.weight_id_to_file_value = weights.places
    exporter.blob_writers[str(weights.path)] = weights.writer
    described = CoreMLProtoExporter(program, exporter.export(), "", "", None, "mlprogram", "milinternal", SPECIFICATION)
    model = described.export(SPECIFICATION)
    model.description.metadata.userDefined.update(metadata)
    exporter.blob_writers.clear()
    del weights.writer  # which completes the file
    _pack(model.SerializeToString(deterministic=True), weights.path, out)


def _pack(model: bytes, weights: Path, out: Path) -> None:
    """Manifest, model and weights, as Xcode has them."""
    items = {
        f"{_AUTHOR}/model.mlmodel": "CoreML Model Specification",
        f"{_AUTHOR}/weights": "CoreML Model Weights",
    }
    folder = out / "Data" / _AUTHOR
    (folder / "weights").mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(model)
    shutil.move(weights, folder / "weights" / weights.name)
    entries = {
        str(uuid.uuid5(uuid.NAMESPACE_URL, path)): {
            "author": _AUTHOR,
            "description": text,
            "name": Path(path).name,
            "path": path,
        }
        for path, text in items.items()
    }
    root = next(key for key, entry in entries.items() if entry["name"] == "model.mlmodel")
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": root}
    (out / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")
