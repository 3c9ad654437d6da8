"""The packages that the tvm backend needs: TVM, its interface library, and a linker."""

from __future__ import annotations

from importlib import metadata

from slmc.errors import MissingToolError

PACKAGES = ("apache-tvm", "apache-tvm-ffi", "ziglang")
TESTED = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post0"}
"""Tested together. A newer apache-tvm-ffi satisfies apache-tvm's own bound and crashes."""


def versions() -> dict[str, str]:
    """Installed version of each package. Raises MissingToolError."""
    return {package: _version(package) for package in PACKAGES}


def check_tools() -> None:
    """Raises MissingToolError where a package is missing, or TVM's two don't belong together."""
    found = versions()
    if any(found[package] != wanted for package, wanted in TESTED.items()):
        raise MissingToolError(
            "apache-tvm and apache-tvm-ffi are not a pair that was tested",
            where=", ".join(f"{package} {found[package]}" for package in TESTED),
            expected=", ".join(f"{package} {wanted}" for package, wanted in TESTED.items()),
            todo="pip install " + " ".join(f"{package}=={wanted}" for package, wanted in TESTED.items()),
        )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise MissingToolError(f"{package} is not installed", todo="pip install 'slmc[tvm]'") from None
