"""`mlc-package-config.json`, from which `mlc_llm package` makes what Xcode and Gradle take.

Its paths are relative to the folder that the command is run in, which is the file's own; see
`python/mlc_llm/interface/package.py` of mlc-ai/mlc-llm.
"""

from __future__ import annotations

import json
from pathlib import Path

from slmc.models.mlc import PACKAGE_CONFIG
from slmc.names import TargetName

_DEVICES: dict[TargetName, str] = {"ios": "iphone", "android": "android"}


def write_package_config(
    folder: Path, target: TargetName, model_id: str, model_lib: str, library: str, memory: int
) -> None:
    """For phones; a Mac's engine takes folder and library as they are. `memory` is in bytes."""
    if target not in _DEVICES:
        return
    config = {
        "device": _DEVICES[target],
        "model_list": [
            {
                "model": model_id,
                "model_id": model_id,
                "model_lib": model_lib,
                "estimated_vram_bytes": memory,
                "bundle_weight": True,
            }
        ],
        "model_lib_path_for_prepare_libs": {model_lib: library},
    }
    (folder / PACKAGE_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="ascii")
