"""The packages that the executorch backend needs."""

from __future__ import annotations

from importlib import metadata

from slmc.errors import MissingToolError

PACKAGES = ("executorch", "torch")
TESTED = "1.5.1"
"""Parts of ExecuTorch that are not its public interface are used, see `pte`."""


def versions() -> dict[str, str]:
    """Installed version of each package. Raises MissingToolError."""
    try:
        return {package: metadata.version(package) for package in PACKAGES}
    except metadata.PackageNotFoundError as error:
        raise MissingToolError(f"{error.name} is not installed", todo="pip install 'slmc[executorch]'") from None


def check_tools() -> None:
    """Raises MissingToolError where a package is missing or of a version that was not tested."""
    found = versions()["executorch"]
    if found != TESTED:
        raise MissingToolError(f"executorch {found}", expected=TESTED, todo=f"pip install executorch=={TESTED}")
