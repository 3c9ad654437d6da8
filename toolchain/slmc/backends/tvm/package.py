"""Where each system's developers look for a native library.

Linux      libslm.so, slm.h
macOS      libslm.dylib, slm.h, and slm.xcframework with the same library for SwiftPM
Android    jniLibs/arm64-v8a/libslm.so, as Gradle takes it, java/org/slmc with the classes for it, and slm.h
iOS        slm.xcframework with a slice for devices and one for the simulator, each with header and module map

A slice's headers lie in a folder of the module's name, where clang looks too: Xcode copies all frameworks' headers into
one folder, and two module maps at its root end the build (github.com/swiftlang/swift-build/issues/1746).
"""

from __future__ import annotations

import plistlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slmc import text
from slmc.backends.tvm.library import NATIVE
from slmc.backends.tvm.link import System, library_name, system_of

HEADERS, FRAMEWORK, JAVA = (NATIVE / "slm.h", text.HEADER), "slm.xcframework", "java"
_MODULE = "slm"
_OF_APPLE = ("ios", "macos")


def package(triples: Sequence[str], out: Path, build: Callable[[str, Path], None]) -> Mapping[str, Path]:
    """Build the libraries into their places in `out`; each one's path by its triple."""
    paths = {triple: out / _place(triple) for triple in triples}
    for triple, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        build(triple, path)
        name = system_of(triple).name
        if name != "ios":
            _copy_headers(out)
        if name == "macos":
            _copy(path, out / FRAMEWORK / identifier(triple) / path.name)
        if name in _OF_APPLE:
            write_module(out / FRAMEWORK / identifier(triple), _MODULE, HEADERS)
        if name == "android":
            shutil.copytree(NATIVE / JAVA, out / JAVA)
    slices = {triple: library_name(triple) for triple in triples if system_of(triple).name in _OF_APPLE}
    if slices:
        write_plist(out / FRAMEWORK, slices)
    return paths


def write_plist(framework: Path, libraries: Mapping[str, str]) -> None:
    """What an xcframework consists of: the name of each triple's library in its slice."""
    slices = [_slice(triple, name) for triple, name in libraries.items()]
    plist = {"AvailableLibraries": slices, "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}
    (framework / "Info.plist").write_bytes(plistlib.dumps(plist))


def write_module(part: Path, module: str, headers: Sequence[Path]) -> None:
    """Headers into a slice, for Swift as a module of the name, whose own header is the one that is called so."""
    folder = part / "Headers" / module
    _copy_headers(folder, headers)
    text = f'module {module} {{\n  header "{module}.h"\n  export *\n}}\n'
    (folder / "module.modulemap").write_text(text, encoding="ascii")


def identifier(triple: str) -> str:
    """The folder of a slice."""
    system = system_of(triple)
    return f"{system.name}-{_architecture(system)}{'-simulator' if system.simulator else ''}"


def _copy_headers(folder: Path, headers: Sequence[Path] = HEADERS) -> None:
    for header in headers:
        _copy(header, folder / header.name)


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def _place(triple: str) -> Path:
    system, name = system_of(triple), library_name(triple)
    if system.name == "android":
        return Path("jniLibs") / "arm64-v8a" / name
    if system.name == "ios":
        return Path(FRAMEWORK) / identifier(triple) / name
    return Path(name)


def _architecture(system: System) -> str:
    """As Apple calls it."""
    return "arm64" if system.machine == "aarch64" else system.machine


def _slice(triple: str, name: str) -> dict[str, object]:
    """An entry of the framework's Info.plist, as `xcodebuild -create-xcframework` writes it."""
    system = system_of(triple)
    entry: dict[str, object] = {
        "BinaryPath": name,
        "HeadersPath": "Headers",
        "LibraryIdentifier": identifier(triple),
        "LibraryPath": name,
        "SupportedArchitectures": [_architecture(system)],
        "SupportedPlatform": system.name,
    }
    if system.simulator:
        entry["SupportedPlatformVariant"] = "simulator"
    return entry
