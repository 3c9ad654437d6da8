"""Build `slm-run`, the runner for machines without Python: one program, of the library's objects and native/runner.

For Linux and Android it is static, so that it needs nothing of the system that it runs on. For iOS, where programs run
within apps alone, it is a static library whose function `slm_run` is the program.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from slmc.backends.tvm.library import FLAGS, NATIVE, SOURCES, Zig, compile_objects, zig_tools
from slmc.backends.tvm.link import clang_flags, link, system_of
from slmc.errors import CompileError

RUNNER = "slm-run"
FOLDER = NATIVE / "runner"
HEADER = FOLDER / "slm_run.h"
_MAIN = "main.c"


def build_runner(triple: str, out: Path) -> None:
    """Write the program `out` for a triple of Linux or macOS, or the library for iOS; Linux's program runs on Android
    too. The same sources and tools give the same bytes. Raises CompileError with what the compiler or linker said.
    """
    system = system_of(triple)
    if system.name not in ("linux", "macos", "ios"):
        raise CompileError("the runner is built for no such system", where=triple, expected="Linux, macOS or iOS")
    with TemporaryDirectory() as made, zig_tools() as zig:
        objects = compile_objects(zig, triple, Path(made))
        objects += _runner_objects(zig, triple, Path(made))
        if system.name == "ios":
            link(zig, objects, triple, out)
            return
        inputs = [str(path) for path in objects]
        whole = ["-static", "-Wl,--gc-sections"] if system.name == "linux" else ["-Wl,-dead_strip"]
        zig(["cc", *clang_flags(triple), *whole, "-s", *inputs, "-o", str(out)], triple)


def _runner_objects(zig: Zig, triple: str, folder: Path) -> list[Path]:
    objects = []
    for source in sorted(FOLDER.glob("*.c")):
        if source.name == _MAIN and system_of(triple).name == "ios":
            continue
        objects.append(folder / f"runner-{source.name}.o")
        includes = [f"-I{found}" for found in SOURCES]
        zig(["cc", *clang_flags(triple), *FLAGS, *includes, "-c", str(source), "-o", str(objects[-1])], triple)
    return objects
