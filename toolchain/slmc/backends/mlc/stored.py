"""A model library for this machine's CPU, by way of the store: to run a phone's weights where they were made."""

from __future__ import annotations

from pathlib import Path

from slmc import console, digest
from slmc.backends import child
from slmc.backends.mlc.library.settings import Settings
from slmc.backends.tvm.tools import versions
from slmc.models.mlc import WEIGHTS, read_mlc
from slmc.provenance import code_digest
from slmc.store import Stage, Store

LIBRARY = "libmodel.so"


def stored_library(store: Store, artifact: Path) -> Path:
    """For what the artifact's configuration says, whatever its weights. Raises CompileError or MissingToolError."""
    made = read_mlc(artifact)
    settings = Settings(
        target="host",
        form=made.quantization,
        context=made.context,
        chunk=made.chunk,
        model_id=made.model_id,
        name=made.model_lib,
    )
    inputs = {
        "settings": settings.model_dump(mode="json"),
        "architecture": digest.of_file(artifact / "config.json"),
        "tensors": digest.of_file(artifact / made.model_id / WEIGHTS),
        "code": code_digest(),
        "tools": versions(),
    }

    def make(folder: Path) -> None:
        child.run("mlc.library.export", [str(artifact), str(folder / LIBRARY), settings.model_dump_json()])

    with console.step("library for this machine") as told:
        entry = told(store.obtain(Stage("mlc-library", inputs), make))
    return entry.folder / LIBRARY
