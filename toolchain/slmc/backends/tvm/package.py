"""Where each system's developers look for a native library.

Linux      libslm.so, slm.h
macOS      libslm.dylib, slm.h
Android    jniLibs/arm64-v8a/libslm.so, as Gradle takes it, java/org/slmc with the classes for it, and slm.h
iOS        slm.xcframework with a slice for devices and one for the simulator, each with header and module map
"""

from __future__ import annotations

import plistlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slmc import text
from slmc.backends.tvm.library import NATIVE
from slmc.backends.tvm.link import library_name, system_of

HEADERS, FRAMEWORK, JAVA = (NATIVE / "slm.h", text.HEADER), "slm.xcframework", "java"
_MODULE = 'module slm {\n  header "slm.h"\n  export *\n}\n'


def package(triples: Sequence[str], out: Path, build: Callable[[str, Path], None]) -> Mapping[str, Path]:
    """Build the libraries into their places in `out`; each one's path by its triple."""
    paths = {triple: out / _place(triple) for triple in triples}
    for triple, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        build(triple, path)
        if system_of(triple).name == "ios":
            headers = path.parent / "Headers"
            headers.mkdir()
            _copy_headers(headers)
            (headers / "module.modulemap").write_text(_MODULE, encoding="ascii")
        else:
            _copy_headers(out)
        if system_of(triple).name == "android":
            shutil.copytree(NATIVE / JAVA, out / JAVA)
    slices = [_slice(triple) for triple in triples if system_of(triple).name == "ios"]
    if slices:
        plist = {"AvailableLibraries": slices, "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}
        (out / FRAMEWORK / "Info.plist").write_bytes(plistlib.dumps(plist))
    return paths


def _copy_headers(folder: Path) -> None:
    for header in HEADERS:
        shutil.copyfile(header, folder / header.name)


def _place(triple: str) -> Path:
    system, name = system_of(triple), library_name(triple)
    if system.name == "android":
        return Path("jniLibs") / "arm64-v8a" / name
    if system.name == "ios":
        return Path(FRAMEWORK) / _identifier(triple) / name
    return Path(name)


def _identifier(triple: str) -> str:
    return "ios-arm64-simulator" if system_of(triple).simulator else "ios-arm64"


def _slice(triple: str) -> dict[str, object]:
    """An entry of the framework's Info.plist, as `xcodebuild -create-xcframework` writes it."""
    name = library_name(triple)
    entry: dict[str, object] = {
        "BinaryPath": name,
        "HeadersPath": "Headers",
        "LibraryIdentifier": _identifier(triple),
        "LibraryPath": name,
        "SupportedArchitectures": ["arm64"],
        "SupportedPlatform": "ios",
    }
    if system_of(triple).simulator:
        entry["SupportedPlatformVariant"] = "simulator"
    return entry
