"""The package that the coreml backend needs."""

from __future__ import annotations

from importlib import metadata

from slmc.errors import MissingToolError

PACKAGE = "coremltools"
TESTED = "9.0"
"""Parts of it that are not its public interface are used, see `package`."""


def check_tools() -> None:
    """Raises MissingToolError where it is missing or of a version that was not tested."""
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise MissingToolError(f"{PACKAGE} is not installed", todo="pip install 'slmc[coreml]'") from None
    if found != TESTED:
        raise MissingToolError(f"{PACKAGE} {found}", expected=TESTED, todo=f"pip install {PACKAGE}=={TESTED}")
