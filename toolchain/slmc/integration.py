"""What an app's engineer adds to the app, into a bundle: a Gradle module, a Swift package.

They lie under targets/ as they are delivered. `android/` in a bundle is a Gradle module; a bundle for iOS or macOS is a
Swift package itself, its sources those that both flavours share and those of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from slmc import digest
from slmc.names import BackendName, TargetName
from slmc.target import targets_folder

_SHARED = ("Sources", "Tests")
_FLAVOURS = {"tvm": "native", "coreml": "coreml"}
_PAGE = "README.md"
_PREFIX = "prefix.slm"


def integration(target: TargetName, backend: BackendName) -> Path | None:
    """The folder that is delivered; None where a backend has none for a target."""
    if target == "android" and backend in ("tvm", "executorch"):
        return targets_folder() / "android" / "integration"
    if target in ("ios", "metal") and backend in _FLAVOURS:
        return targets_folder() / "ios" / "integration"
    return None


def digest_of(target: TargetName, backend: BackendName) -> str | None:
    """Names what would be delivered."""
    found = integration(target, backend)
    return None if found is None else digest.of_value(digest.of_folder(found))


def copy_integration(target: TargetName, backend: BackendName, folder: Path) -> None:
    """Into the folder that has the task file, and `prefix.slm` where prompts have a common beginning."""
    found = integration(target, backend)
    if found is None:
        return
    if target == "android":
        shutil.copytree(found, folder / "android")
        return
    for name in _SHARED:
        shutil.copytree(found / name, folder / name)
    shutil.copytree(found / _FLAVOURS[backend], folder, dirs_exist_ok=True)
    if not (folder / _PREFIX).exists():
        _leave_out_prefix(folder / "Package.swift")


def _leave_out_prefix(package: Path) -> None:
    """SwiftPM refuses a package whose resources are not all there."""
    lines = package.read_text(encoding="utf-8").splitlines(keepends=True)
    package.write_text("".join(line for line in lines if f'"{_PREFIX}"' not in line), encoding="utf-8")


def page(target: TargetName, backend: BackendName) -> str | None:
    """How to add it and ask, as Markdown; None where there is none."""
    found = integration(target, backend)
    return None if found is None else (found / _PAGE).read_text(encoding="utf-8")
