"""Link objects into a shared library with lld, which the `ziglang` package carries for every system.

No SDK and no libc: the few functions that the kernels call (memset and the like) are found in the
process that loads the library. The output depends on the objects alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slmc.errors import CompileError

_MACOS = re.compile(r"(?P<arch>arm64|x86_64)-apple-macosx(?P<version>[0-9.]+)")


def library_name(triple: str) -> str:
    return "model.dylib" if _MACOS.fullmatch(triple) else "model.so"


def link(objects: Sequence[Path], triple: str, library: Path) -> None:
    """Raises CompileError with what the linker said."""
    command = [sys.executable, "-m", "ziglang", *link_arguments(triple, library.name), "-o", str(library)]
    done = subprocess.run([*command, *map(str, objects)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompileError(f"the linker failed: {done.stderr.strip()[-2000:]}", where=triple)


def link_arguments(triple: str, name: str) -> list[str]:
    """The linker for a triple, and how it makes a shared library."""
    macos = _MACOS.fullmatch(triple)
    if macos:
        system = ["-arch", macos["arch"], "-platform_version", "macos", macos["version"], macos["version"]]
        return ["ld64.lld", "-dylib", *system, "-undefined", "dynamic_lookup", "-install_name", f"@rpath/{name}"]
    if "-linux-" in triple:
        return ["ld.lld", "-shared", "--strip-all", "--build-id=none", "-z", "noexecstack", "-soname", name]
    raise CompileError("no way to link for this system", where=triple, expected="Linux or macOS")
