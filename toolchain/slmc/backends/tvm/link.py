"""Compile and link for every system with what the `ziglang` package carries: no SDK, no libc of the target.

What a library calls is in libc and libm alone. For Linux and Android these are stood in for by empty libraries
with the functions that we allow, so that the real ones are named as needed, and any other call fails here.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from slmc.errors import CompileError

if TYPE_CHECKING:
    from slmc.backends.tvm.library import Zig

_TRIPLE = re.compile(
    r"(?P<machine>x86_64|aarch64|arm64)-(?:(?P<linux>linux-gnu|linux-android)(?P<api>\d*)"
    r"|apple-(?P<apple>macosx|ios)(?P<version>[0-9.]+)(?P<simulator>-simulator)?)"
)
_CALLED = [
    "calloc",
    "clock_gettime",
    "close",
    "free",
    "getauxval",
    "lseek",
    "malloc",
    "memchr",
    "memcmp",
    "memcpy",
    "memmove",
    "memset",
    "mmap",
    "munmap",
    "open",
    "qsort",
    "realloc",
    "sched_yield",
    "snprintf",
    "strcmp",
    "strerror",
    "strncmp",
    "vsnprintf",
]
_CALLED_OF_THREADS = [
    "pthread_cond_broadcast",
    "pthread_cond_destroy",
    "pthread_cond_init",
    "pthread_cond_wait",
    "pthread_create",
    "pthread_join",
    "pthread_mutex_destroy",
    "pthread_mutex_init",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
]
_CALLED_OF_MATHS = ["exp", "log", "sqrtf"]
PAGE_BYTES = 16384
"""Android 15's, and a multiple of every other's."""


@dataclass(frozen=True)
class System:
    """What a triple asks for."""

    machine: str
    """As zig calls it."""
    name: str
    """linux, android, macos or ios."""
    version: str
    """Of Apple's systems, the oldest that runs it."""
    simulator: bool


def system_of(triple: str) -> System:
    """Raises CompileError for a system that is not known."""
    found = _TRIPLE.fullmatch(triple)
    if found is None:
        raise CompileError("no way to build for this system", where=triple, expected="Linux, Android, macOS or iOS")
    machine = "x86_64" if found["machine"] == "x86_64" else "aarch64"
    if found["apple"]:
        name = "macos" if found["apple"] == "macosx" else "ios"
        return System(machine, name, found["version"], bool(found["simulator"]))
    return System(machine, "android" if "android" in found["linux"] else "linux", "", simulator=False)


def library_name(triple: str) -> str:
    """A static library for iOS, where an app is one program; shared elsewhere."""
    return {"ios": "libslm.a", "macos": "libslm.dylib"}.get(system_of(triple).name, "libslm.so")


def clang_flags(triple: str) -> list[str]:
    """Target and headers. Those of Linux serve Android too, of macOS iOS: the few types we use are the same."""
    system = system_of(triple)
    if system.name in ("linux", "android"):
        # musl's, glibc's and bionic's types of 64-bit machines agree; errno is the one name that does not.
        errno = ["-D__errno_location=__errno"] if system.name == "android" else []
        return ["-target", f"{system.machine}-linux-musl", *errno]
    if system.name == "macos":
        return _macos_target(system)
    abi = "-simulator" if system.simulator else ""
    headers = Path(sysconfig.get_path("purelib")) / "ziglang" / "lib" / "libc" / "include" / "any-macos-any"
    # A12 is the oldest CPU that iOS 18 runs on.
    return ["-target", f"{system.machine}-ios.{system.version}{abi}", "-mcpu=apple_a12", "-isystem", str(headers)]


def _macos_target(system: System) -> list[str]:
    cpu = ["-mcpu=apple_m1"] if system.machine == "aarch64" else []
    return ["-target", f"{system.machine}-macos.{system.version}", *cpu]


def link(zig: Zig, objects: Sequence[Path], triple: str, library: Path) -> None:
    """Write `library`. Raises CompileError with what the linker said."""
    system, inputs = system_of(triple), [str(path) for path in objects]
    if system.name == "ios":
        zig(["ar", "rcsD", str(library), *inputs], triple)
    elif system.name == "macos":
        flags = ["-shared", f"-Wl,-install_name,@rpath/{library.name}", "-Wl,-dead_strip", "-s"]
        zig(["cc", *_macos_target(system), *flags, *inputs, "-o", str(library)], triple)
    else:
        with TemporaryDirectory() as folder:
            needed = _stand_ins(zig, system, triple, Path(folder))
            options = ["-shared", "--strip-all", "--build-id=none", "--gc-sections", "-z", "noexecstack", "-z", "defs"]
            # With the common size too, what becomes read-only after loading ends with a page, whatever its size.
            options += ["-z", f"max-page-size={PAGE_BYTES}", "-z", f"common-page-size={PAGE_BYTES}"]
            options += ["-z", "relro", "-z", "now", "--hash-style=gnu"]
            named = ["-soname", library.name, "-o", str(library)]
            zig(["ld.lld", *options, *named, *inputs, "--as-needed", *needed], triple)


def _stand_ins(zig: Zig, system: System, triple: str, folder: Path) -> list[str]:
    """Libraries with names and nothing behind them.

    x86-64's glibc has two kinds of condition variables. A name without a version means the older, which takes
    memory when it is first waited for.
    """
    made = []
    for name, functions in _libraries(system).items():
        source, library = folder / f"{name}.c", folder / name
        source.write_text("".join(f"void {function}(void) {{}}\n" for function in functions), encoding="ascii")
        flags = [*clang_flags(triple), "-c", "-fPIC", "-fno-builtin", "-w", "-fno-sanitize=all"]
        zig(["cc", *flags, str(source), "-o", f"{source}.o"], triple)
        versions = []
        if name == "libpthread.so.0" and system.machine == "x86_64":
            script = folder / "versions"
            script.write_text("GLIBC_2.3.2 { pthread_cond_*; };\n", encoding="ascii")
            versions = ["--version-script", str(script)]
        zig(["ld.lld", "-shared", "-soname", name, *versions, "-o", str(library), f"{source}.o"], triple)
        made.append(str(library))
    return made


def _libraries(system: System) -> Mapping[str, Sequence[str]]:
    """Which library has which functions."""
    if system.name == "android":
        return {"libc.so": [*_CALLED, *_CALLED_OF_THREADS, "__errno"], "libm.so": _CALLED_OF_MATHS}
    # Until glibc 2.34 threads had a library of their own; since then it is an empty one.
    return {
        "libpthread.so.0": _CALLED_OF_THREADS,
        "libc.so.6": [*_CALLED, "__errno_location"],
        "libm.so.6": _CALLED_OF_MATHS,
    }
