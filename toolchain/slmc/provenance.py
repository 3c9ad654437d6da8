"""What decides, beside weights and options, what a stage makes: slmc's own code, packages, a recipe's data."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from slmc import __version__, digest
from slmc.recipe import LoadedRecipe

_SOURCES = frozenset({".py", ".c", ".h", ".java", ".j2"})
"""Suffixes of slmc's own code, the native library's and templates too."""
TOOLS: Mapping[str, tuple[str, ...]] = {
    "reference": ("torch", "transformers"),
    "tvm": ("apache-tvm", "apache-tvm-ffi", "ziglang"),
    "executorch": ("executorch", "torch"),
    "coreml": ("coremltools",),
    "mlc": ("apache-tvm", "apache-tvm-ffi", "ziglang"),
}
"""The installed packages that decide what a stage makes."""


def data_digests(recipe: LoadedRecipe) -> dict[str, str]:
    """Digest of each file that the recipe names beside its models."""
    data, task = recipe.recipe.data, recipe.recipe.task
    named = [data.evaluation, data.calibration, getattr(task, "json_schema", None), getattr(task, "labels", None)]
    return {name: digest.of_file(recipe.file(name)) for name in named if isinstance(name, str)}


def tool_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions; "not installed" where a package is missing."""
    return {package: _version(package) for package in packages}


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def code_digest() -> str:
    """Digest of slmc's own sources: a change of the code is a change of what it makes."""
    sources = sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in _SOURCES)
    return digest.of_value([__version__, *(digest.of_file(path) for path in sources)])
