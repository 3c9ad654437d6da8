"""Build `slm-run`, the runner for machines without Python: one program, of the library's objects and native/runner.

For Linux and Android it is static, so that it needs nothing of the system that it runs on.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from slmc.backends.tvm.library import FLAGS, NATIVE, SOURCES, compile_objects, zig_tools
from slmc.backends.tvm.link import clang_flags, system_of
from slmc.errors import CompileError

RUNNER = "slm-run"
_FOLDER = NATIVE / "runner"


def build_runner(triple: str, out: Path) -> None:
    """Write the program `out` for a triple of Linux or macOS; Linux's runs on Android too. The same sources and tools
    give the same bytes. Raises CompileError with what the compiler or linker said.
    """
    system = system_of(triple)
    if system.name not in ("linux", "macos"):
        raise CompileError("the runner is built for no such system", where=triple, expected="Linux or macOS")
    with TemporaryDirectory() as made, zig_tools() as zig:
        folder = Path(made)
        objects = compile_objects(zig, triple, folder)
        for source in sorted(_FOLDER.glob("*.c")):
            objects.append(folder / f"runner-{source.name}.o")
            includes = [f"-I{found}" for found in SOURCES]
            zig(["cc", *clang_flags(triple), *FLAGS, *includes, "-c", str(source), "-o", str(objects[-1])], triple)
        inputs = [str(path) for path in objects]
        whole = ["-static", "-Wl,--gc-sections"] if system.name == "linux" else ["-Wl,-dead_strip"]
        zig(["cc", *clang_flags(triple), *whole, "-s", *inputs, "-o", str(out)], triple)
