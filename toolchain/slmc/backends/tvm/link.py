"""Link objects into a shared library with the linkers that the `ziglang` package carries, for every system.

No SDK and no libc: the few functions that a library calls are found in the process that loads it. The
output depends on the objects and the library's name alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc.errors import CompileError

_MACOS = re.compile(r"(?P<machine>arm64|x86_64)-apple-macosx(?P<version>[0-9.]+)")
_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
"""As zig calls them."""


def library_name(triple: str) -> str:
    return "model.dylib" if _MACOS.fullmatch(triple) else "model.so"


def link(objects: Sequence[Path], triple: str, library: Path) -> None:
    """Raises CompileError with what the linker said."""
    command = [sys.executable, "-m", "ziglang", *link_arguments(triple, library.name), "-o", str(library)]
    with TemporaryDirectory() as cache:
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        done = subprocess.run(
            [*command, *map(str, objects)], capture_output=True, text=True, check=False, env=environment
        )
    if done.returncode != 0:
        raise CompileError(f"the linker failed: {done.stderr.strip()[-2000:]}", where=triple)


def link_arguments(triple: str, name: str) -> list[str]:
    """The linker for a triple, and how it makes a shared library. Raises CompileError for another system."""
    macos = _MACOS.fullmatch(triple)
    if macos:
        system = f"{_MACHINES[macos['machine']]}-macos.{macos['version']}"
        flags = [f"-Wl,{flag}" for flag in ("-undefined,dynamic_lookup", f"-install_name,@rpath/{name}", "-s")]
        return ["cc", "-target", system, "-shared", "-nostdlib", *flags]
    if "-linux-" in triple:
        return ["ld.lld", "-shared", "--strip-all", "--build-id=none", "-z", "noexecstack", "-soname", name]
    raise CompileError("no way to link for this system", where=triple, expected="Linux or macOS")
