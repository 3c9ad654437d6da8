"""Folders with small random models, as the runner of compiled decoders takes them."""

from __future__ import annotations

from pathlib import Path

from slmc.backends.tvm.weights import WeightsReader
from slmc.models.compiled import WEIGHTS, CompiledDecoder, Library, write_compiled

from ..native_files import Model, write


def write_model(folder: Path, model: Model) -> Path:
    """Into a new folder, with no library of its own. The path of the weight file."""
    folder.mkdir()
    path = folder / WEIGHTS
    write(path, model)
    weights = WeightsReader(path)
    compiled = CompiledDecoder(
        libraries=(Library(path="none", triple="none", sha256="0" * 64, kernels=()),),
        weights_sha256=weights.sha256,
        activations="float32" if weights.config.activations else "int8",
        bits=(4, 8),
        vocab_size=weights.config.vocab_size,
        context=weights.config.context,
        versions={},
    )
    write_compiled(folder, compiled)
    return path
