"""Build the native library for a triple: kernels by TVM, C by clang, linked, on any machine.

The library knows no model. It has the kernels of every CPU level of its architecture, and takes the best that
the CPU has when it opens a weight file; see native/slm.h.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from slmc import digest
from slmc.backends.tvm.link import clang_flags, link, system_of
from slmc.errors import CompileError
from slmc.text import NATIVE as TEXT

NATIVE = Path(__file__).parent / "native"
SOURCES = (NATIVE, TEXT)
_JAVA = "jni*.c"
FLAGS = (
    *("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-stack-protector", "-fno-math-errno"),
    "-fno-builtin-bcmp",  # what clang makes of memcmp is not in every libc
    *("-D_DEFAULT_SOURCE", "-D_DARWIN_C_SOURCE", "-g0", "-ffunction-sections", "-fno-sanitize=all"),
    # arm64 would round a product and a sum once, x86-64 twice: so a phone's logits are this machine's, to the bit.
    "-ffp-contract=off",
)


def build_library(triple: str, out: Path, *, java: bool = False) -> None:
    """Write the shared or static library `out`. The same sources and tools give the same bytes.

    With `java`, and for Android always, it has the native methods of the classes org.slmc.Slm* too.

    Raises CompileError with what the compiler or linker said.
    """
    with TemporaryDirectory() as folder, zig_tools() as zig:
        link(zig, compile_objects(zig, triple, Path(folder), java=java), triple, out)


def compile_objects(zig: Zig, triple: str, folder: Path, *, java: bool = False) -> list[Path]:
    """Objects of all kernels and C sources, in the folder."""
    _run([sys.executable, "-m", "slmc.backends.tvm.codegen", triple, str(folder)], triple, "the kernel compiler")
    sources = [*_c_sources(java or system_of(triple).name == "android"), *sorted(folder.glob("*.s"))]
    objects = [folder / f"{source.name}.o" for source in sources]
    flags = [*clang_flags(triple), *FLAGS, f"-DSLM_CODE=0x{_code()}"]
    flags += [f"-I{found}" for found in (folder, *SOURCES)]
    for source, made in zip(sources, objects, strict=True):
        zig(["cc", *flags, "-c", str(source), "-o", str(made)], triple)
    return objects


def _code() -> str:
    """Names what makes keys and values of tokens: the kernels and the C around them, for any system."""
    kernels = Path(__file__).parent / "kernels"
    files = [path for folder in (*SOURCES, kernels) for path in sorted(folder.glob("*.[chp]*"))]
    return digest.of_value([digest.of_file(path) for path in files])[:16]


def _c_sources(java: bool) -> list[Path]:
    return [source for folder in SOURCES for source in sorted(folder.glob("*.c")) if java or not source.match(_JAVA)]


@contextmanager
def zig_tools() -> Iterator[Zig]:
    """Runs the tools in the `ziglang` package, with a cache that is gone afterwards."""
    with TemporaryDirectory() as cache:
        yield Zig(Path(cache))


class Zig:
    def __init__(self, cache: Path) -> None:
        self._environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}

    def __call__(self, arguments: Sequence[str], where: str) -> None:
        _run([sys.executable, "-m", "ziglang", *arguments], where, f"zig {arguments[0]}", self._environment)


def _run(command: Sequence[str], where: str, name: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise CompileError(f"{name} {_cause(done.returncode)}\n{_tail(done.stderr)}".rstrip(), where=where)


def _cause(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
