"""The same slmc and the same tools on every machine: a stage's name holds what made it, whoever did."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from slmc.errors import MissingToolError
from slmc.provenance import TOOLS, code_digest, tool_versions
from slmc.target import targets_folder

_TOOLS = tuple(dict.fromkeys(["tokenizers", "outlines-core", *(name for names in TOOLS.values() for name in names)]))


def identity() -> dict[str, str]:
    """Of this machine: slmc's own code, and the version of each package that decides what a stage makes."""
    return {"slmc's code": code_digest()[:16], **tool_versions(_TOOLS)}


def check_same(wanted: Mapping[str, str]) -> None:
    """On a worker. Raises MissingToolError naming both where it differs from the machine that asks."""
    here = identity()
    for name, version in wanted.items():
        if here[name] != version:
            raise MissingToolError(
                f"a worker differs from this machine in {name}: it has {here[name]}",
                where=platform.node(),
                expected=version,
                todo="install the same slmc with the same extras on every machine of the cluster",
            )


def copy_code(folder: Path) -> Path:
    """slmc as a package with its targets inside, as a wheel has them, for workers to import."""
    package = folder / "slmc"
    shutil.copytree(Path(__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(targets_folder(), package / "_targets", dirs_exist_ok=True)
    return package
