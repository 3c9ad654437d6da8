"""The native libraries of every target, read as the systems' own loaders and linkers read them."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import lief
import pytest

from slmc.backends.tvm.library import NATIVE, SOURCES, build_library, zig_tools
from slmc.backends.tvm.link import library_name
from slmc.backends.tvm.package import HEADERS, package
from slmc.target import load_target, target_names, targets_folder

pytestmark = pytest.mark.build

MOST_BYTES = 1_500_000
PAGE = 16384
HEADER_NAMES = {"slm.h", "slm_text.h"}
JAVA_CLASSES = ("Slm", "SlmCheck", "SlmDecider", "SlmDecision", "SlmException", "SlmPiece", "SlmSampling", "SlmText")
TRIPLES = sorted({build.triple for name in target_names() for build in load_target(name).native})
LINUX = [triple for triple in TRIPLES if "-linux-" in triple]
ANDROID = [triple for triple in TRIPLES if "-android" in triple]
MACOS = [triple for triple in TRIPLES if "-macosx" in triple]
IOS = [triple for triple in TRIPLES if "-ios" in triple]
NEEDED = {"gnu": {"libc.so.6", "libm.so.6", "libpthread.so.0"}, "android": {"libc.so", "libm.so"}}
APPLES_PATHS = {"/usr/lib/dyld", "/usr/lib/libSystem.B.dylib"}
OF_ZIGS_LINKER = {"__mh_dylib_header", "___dso_handle"}
"""Markers of the image, not functions, which it puts into every dylib, and has no option to leave out."""

Paths = dict[str, Path]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Each triple's, built once."""
    lief.logging.disable()
    root = tmp_path_factory.mktemp("libraries")
    paths = {triple: root / triple / library_name(triple) for triple in TRIPLES}
    for triple, path in paths.items():
        path.parent.mkdir()
        build_library(triple, path)
    return paths


def functions_of_c() -> set[str]:
    text = "".join(header.read_text(encoding="ascii") for header in HEADERS)
    return set(re.findall(r"^SLM_API\s[^;(]*?\b(slm_\w+)\s*\(", text, re.MULTILINE))


def functions_of_java() -> set[str]:
    found = set()
    for path in (NATIVE / "java" / "org" / "slmc").glob("*.java"):
        names = re.findall(r"\bstatic native \S+ (\w+)\(", path.read_text(encoding="utf-8"))
        found |= {f"Java_org_slmc_{path.stem}_{name}" for name in names}
    return found


# What lief reads from a file must not outlive it, so each file stays. Its own types leave most open.
@cache
def elf(path: Path) -> Any:
    """As lief.ELF.Binary."""
    found = lief.ELF.parse(str(path))
    assert found is not None
    return found


@cache
def _universal(path: Path) -> Any:
    found = lief.MachO.parse(str(path))
    assert found is not None
    return found


def macho(path: Path) -> Any:
    """As lief.MachO.Binary."""
    [binary] = _universal(path)
    return binary


def test_all_targets_have_libraries() -> None:
    assert {*LINUX, *MACOS, *IOS} == set(TRIPLES)
    assert all([LINUX, ANDROID, MACOS, IOS])
    assert {"slm_open", "slm_version", "slm_kernels", "slm_stats_get", "slm_chooser_give"} < functions_of_c()
    assert len(functions_of_java()) == 52


# ---- All ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("triple", TRIPLES)
def test_it_is_small(libraries: Paths, triple: str) -> None:
    assert 50_000 < libraries[triple].stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("triple", TRIPLES)
def test_it_has_no_path_of_this_machine(libraries: Paths, triple: str) -> None:
    data = libraries[triple].read_bytes()
    here = {tempfile.gettempdir(), str(Path.home()), sys.prefix, str(Path.cwd()), str(targets_folder().parent)}
    assert [path for path in here if path != "/" and path.encode() in data] == []
    # An URL in a tool's name is none.
    found = re.findall(rb"(?<![\w:/.-])/[A-Za-z][\w.+-]+(?:/[\w.+-]{2,})+", data)
    assert {path.decode() for path in found} <= APPLES_PATHS


@pytest.mark.parametrize("triple", TRIPLES)
def test_the_same_sources_give_the_same_bytes(libraries: Paths, triple: str, tmp_path: Path) -> None:
    again = tmp_path / library_name(triple)
    build_library(triple, again)
    assert again.read_bytes() == libraries[triple].read_bytes()


# ---- Linux and Android ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("triple", LINUX)
def test_elf_names_itself_and_what_it_needs(libraries: Paths, triple: str) -> None:
    binary = elf(libraries[triple])
    machine = {"x86_64": lief.ELF.ARCH.X86_64, "aarch64": lief.ELF.ARCH.AARCH64}[triple.partition("-")[0]]
    assert (binary.header.machine_type, binary.header.file_type) == (machine, lief.ELF.Header.FILE_TYPE.DYN)
    assert binary.get(lief.ELF.DynamicEntry.TAG.SONAME).name == "libslm.so"
    assert set(binary.libraries) == NEEDED["android" if triple in ANDROID else "gnu"]
    assert not binary.has(lief.ELF.DynamicEntry.TAG.RPATH)
    assert not binary.has(lief.ELF.DynamicEntry.TAG.RUNPATH)


@pytest.mark.parametrize("triple", LINUX)
def test_elf_exports_what_the_header_declares(libraries: Paths, triple: str) -> None:
    wanted = functions_of_c() | (functions_of_java() if triple in ANDROID else set())
    assert {symbol.name for symbol in elf(libraries[triple]).exported_symbols} == wanted


@pytest.mark.parametrize("triple", LINUX)
def test_elf_loads_into_pages_of_16_kib(libraries: Paths, triple: str) -> None:
    """As Android 15 and Apple's CPUs under Linux have them, and each page either writable or executable."""
    segments = list(elf(libraries[triple]).segments)
    loaded = [segment for segment in segments if segment.type == lief.ELF.Segment.TYPE.LOAD]
    assert len(loaded) >= 3
    for segment in loaded:
        assert segment.alignment == PAGE
        assert segment.virtual_address % PAGE == segment.file_offset % PAGE
        assert not (segment.has(lief.ELF.Segment.FLAGS.W) and segment.has(lief.ELF.Segment.FLAGS.X))
    pages = [
        page
        for segment in loaded
        for page in range(segment.virtual_address // PAGE, -(-(segment.virtual_address + segment.virtual_size) // PAGE))
    ]
    assert len(pages) == len(set(pages))
    # Android makes the whole page read-only in which this ends.
    [relocated] = [segment for segment in segments if segment.type == lief.ELF.Segment.TYPE.GNU_RELRO]
    assert (relocated.virtual_address + relocated.virtual_size) % PAGE == 0


@pytest.mark.parametrize("triple", LINUX)
def test_elf_relocates_no_code_and_runs_no_stack(libraries: Paths, triple: str) -> None:
    binary = elf(libraries[triple])
    assert not binary.has(lief.ELF.DynamicEntry.TAG.TEXTREL)
    writable = [segment for segment in binary.segments if segment.has(lief.ELF.Segment.FLAGS.W)]
    places = [relocation.address for relocation in binary.dynamic_relocations]
    assert places
    for place in places:
        assert any(one.virtual_address <= place < one.virtual_address + one.virtual_size for one in writable)
    [stack] = [segment for segment in binary.segments if segment.type == lief.ELF.Segment.TYPE.GNU_STACK]
    assert not stack.has(lief.ELF.Segment.FLAGS.X)


def test_conditions_are_of_the_kind_that_takes_no_memory(libraries: Paths) -> None:
    """x86-64's glibc has an older kind too, which a name without a version means."""
    elf = lief.ELF.parse(str(libraries["x86_64-linux-gnu"]))
    assert elf is not None
    versions = {
        str(symbol.name): symbol.symbol_version.symbol_version_auxiliary
        for symbol in elf.imported_symbols
        if str(symbol.name).startswith("pthread_cond_")
    }
    assert len(versions) == 4
    assert {found.name if found else None for found in versions.values()} == {"GLIBC_2.3.2"}


@pytest.mark.parametrize("triple", LINUX)
def test_readelf_says_the_same(libraries: Paths, triple: str) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("not run: needs readelf")
    done = subprocess.run([readelf, "-aW", str(libraries[triple])], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "TEXTREL" not in done.stdout
    machine = "AArch64" if triple.startswith("aarch64") else "Advanced Micro Devices X86-64"
    assert re.search(rf"Machine:\s+{machine}", done.stdout)
    needed = re.findall(r"\(NEEDED\)\s+Shared library: \[(.*?)\]", done.stdout)
    assert set(needed) == NEEDED["android" if triple in ANDROID else "gnu"]
    exported = re.findall(r"GLOBAL DEFAULT\s+\d+ (\w+)$", done.stdout, re.MULTILINE)
    assert set(exported) == functions_of_c() | (functions_of_java() if triple in ANDROID else set())
    aligned = re.findall(r"^\s+LOAD\s.*\s(0x[0-9a-f]+)$", done.stdout, re.MULTILINE)
    assert {int(one, 16) for one in aligned} == {PAGE}
    assert re.search(r"GNU_STACK\s.*\sRW\s", done.stdout)


# ---- macOS and iOS --------------------------------------------------------------------------------------------------


def os_version(triple: str) -> list[int]:
    found = re.search(r"(?:macosx|ios)(\d+)\.(\d+)", triple)
    assert found is not None
    return [int(found[1]), int(found[2]), 0]


@pytest.mark.parametrize("triple", MACOS)
def test_a_dylib_names_itself_and_what_it_needs(libraries: Paths, triple: str) -> None:
    binary = macho(libraries[triple])
    assert binary.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64
    assert binary.header.file_type == lief.MachO.Header.FILE_TYPE.DYLIB
    assert binary.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.MACOS
    assert list(binary.build_version.minos) == os_version(triple)
    assert [library.name for library in binary.libraries] == ["@rpath/libslm.dylib", "/usr/lib/libSystem.B.dylib"]
    assert binary.has_code_signature


@pytest.mark.parametrize("triple", MACOS)
def test_a_dylib_exports_what_the_header_declares(libraries: Paths, triple: str) -> None:
    binary = macho(libraries[triple])
    exported = {symbol.name for symbol in binary.exported_symbols}
    assert exported - OF_ZIGS_LINKER == {f"_{name}" for name in functions_of_c()}
    code = binary.get_section("__text")
    for symbol in binary.exported_symbols:
        within = code.virtual_address <= symbol.value < code.virtual_address + code.size
        assert within == (symbol.name not in OF_ZIGS_LINKER)


@pytest.mark.parametrize("triple", MACOS)
def test_a_dylib_takes_all_else_from_libsystem(libraries: Paths, triple: str) -> None:
    imported = list(macho(libraries[triple]).imported_symbols)
    assert "_mmap" in {symbol.name for symbol in imported}
    for symbol in imported:
        assert symbol.has_binding_info, symbol.name
        assert symbol.binding_info.library.name == "/usr/lib/libSystem.B.dylib"


@pytest.fixture(scope="module", params=IOS)
def objects(
    libraries: Paths, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[Path]]:
    """Of a static library, by its triple."""
    folder = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "ziglang", "ar", "x", str(libraries[request.param])]
    subprocess.run(command, cwd=folder, check=True)
    return request.param, sorted(folder.iterdir())


def test_each_object_is_for_its_platform(objects: tuple[str, list[Path]]) -> None:
    triple, paths = objects
    platforms = lief.MachO.BuildVersion.PLATFORMS
    platform = platforms.IOS_SIMULATOR if triple.endswith("-simulator") else platforms.IOS
    assert {"session.c.o", "forward.c.o"} < {path.name for path in paths}
    for binary in map(macho, paths):
        assert binary.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64
        assert binary.header.file_type == lief.MachO.Header.FILE_TYPE.OBJECT
        assert (binary.build_version.platform, list(binary.build_version.minos)) == (platform, os_version(triple))


def test_an_app_sees_what_the_header_declares(objects: tuple[str, list[Path]]) -> None:
    """Other names are for the library's own objects, begin as ours do, and are not exported from the app."""
    external, private = 0x01, 0x10
    seen: set[str] = set()
    own: set[str] = set()
    undefined: set[str] = set()
    for symbol in (symbol for path in objects[1] for symbol in macho(path).symbols):
        if symbol.type == lief.MachO.Symbol.TYPE.UNDEFINED:
            undefined.add(symbol.name)
        elif symbol.raw_type & external:
            (own if symbol.raw_type & private else seen).add(symbol.name)
    assert seen == {f"_{name}" for name in functions_of_c()}
    assert "_slm_forward" in own
    assert all(name.startswith("_slm_") for name in own)
    assert {name for name in undefined if name.startswith("_slm_")} <= seen | own
    assert undefined - seen - own <= of_libsystem()


def of_libsystem() -> set[str]:
    """All words in what Apple says of its libSystem, as zig carries it."""
    file = Path(sysconfig.get_path("purelib")) / "ziglang" / "lib" / "libc" / "darwin" / "libSystem.tbd"
    return set(re.findall(r"[\w$]+", file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("triple", IOS)
def test_apples_linker_takes_the_archive(libraries: Paths, triple: str) -> None:
    """It wants an index, and each object at a multiple of 8."""
    data = libraries[triple].read_bytes()
    assert data.startswith(b"!<arch>\n")
    names, place = [], 8
    while place < len(data):
        size = int(data[place + 48 : place + 58])
        long_name = re.fullmatch(rb"#1/(\d+) *", data[place : place + 16])
        assert long_name is not None
        begin = place + 60 + int(long_name[1])
        names.append(data[place + 60 : begin].rstrip(b"\0").decode())
        assert begin % 8 == 0
        place += 60 + size + size % 2
    assert names[0].startswith("__.SYMDEF")


# ---- What a target's folder holds -----------------------------------------------------------------------------------


def packaged(target: str, libraries: Paths, out: Path) -> Path:
    def build(triple: str, path: Path) -> None:
        shutil.copyfile(libraries[triple], path)

    package([build.triple for build in load_target(target).native], out, build)
    return out


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("target", "platform", "triples"), [("ios", "ios", IOS), ("metal", "macos", MACOS)])
def test_an_xcframework_has_its_slices(
    libraries: Paths, tmp_path: Path, target: str, platform: str, triples: list[str]
) -> None:
    framework = packaged(target, libraries, tmp_path) / "slm.xcframework"
    plist = plistlib.loads((framework / "Info.plist").read_bytes())
    assert (plist["CFBundlePackageType"], plist["XCFrameworkFormatVersion"]) == ("XFWK", "1.0")
    variants = [one.get("SupportedPlatformVariant") for one in plist["AvailableLibraries"]]
    assert variants == ["simulator" if triple.endswith("-simulator") else None for triple in triples]
    expected = {"Info.plist"}
    for one, triple in zip(plist["AvailableLibraries"], triples, strict=True):
        assert (one["SupportedPlatform"], one["SupportedArchitectures"]) == (platform, ["arm64"])
        folder = framework / one["LibraryIdentifier"]
        assert one["BinaryPath"] == one["LibraryPath"]
        assert (folder / one["LibraryPath"]).read_bytes() == libraries[triple].read_bytes()
        # Not at the root of the headers, which Xcode shares among frameworks.
        headers = folder / one["HeadersPath"] / "slm"
        for header in HEADERS:
            assert (headers / header.name).read_bytes() == header.read_bytes()
        named = [folder / one["LibraryPath"], headers / "module.modulemap", *(headers / name for name in HEADER_NAMES)]
        expected |= {path.relative_to(framework).as_posix() for path in named}
    assert files(framework) == expected


def test_android_gets_the_java_classes(libraries: Paths, tmp_path: Path) -> None:
    folder = packaged("android", libraries, tmp_path)
    java = {f"java/org/slmc/{name}.java" for name in JAVA_CLASSES}
    assert files(folder) == {"jniLibs/arm64-v8a/libslm.so", *HEADER_NAMES, *java}


def test_macos_gets_the_library_and_its_header(libraries: Paths, tmp_path: Path) -> None:
    found = files(packaged("metal", libraries, tmp_path))
    assert {name for name in found if not name.startswith("slm.xcframework/")} == {"libslm.dylib", *HEADER_NAMES}


# ---- The header -----------------------------------------------------------------------------------------------------

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-c")
PROGRAM = """#include "slm.h"
uint32_t version(void);
uint32_t version(void) { return slm_version() + SLM_OK + sizeof(slm_stats); }
"""
COMPILERS = [
    ("gcc", "c", "c11"),
    ("zig cc", "c", "c11"),
    ("g++", "c++", "c++17"),
    ("zig c++", "c++", "c++17"),
]


@pytest.mark.parametrize(("compiler", "language", "standard"), COMPILERS)
def test_the_header_compiles(compiler: str, language: str, standard: str, tmp_path: Path) -> None:
    source = tmp_path / f"program.{language.replace('+', 'p')}"
    source.write_text(PROGRAM, encoding="ascii")
    include = [f"-I{folder}" for folder in SOURCES]
    flags = [f"-std={standard}", *STRICT, *include, "-x", language, str(source), "-o", str(tmp_path / "object")]
    if compiler.startswith("zig "):
        with zig_tools() as zig:
            zig([compiler.removeprefix("zig "), *flags], "the header")
        return
    if shutil.which(compiler) is None:
        pytest.skip(f"not run: needs {compiler}")
    subprocess.run([compiler, *flags], check=True)


@pytest.mark.parametrize("target", ["ios", "metal"])
def test_the_module_map_gives_the_header(libraries: Paths, tmp_path: Path, target: str) -> None:
    """As Swift takes it, by clang's own modules, from the folder that the framework names."""
    framework = packaged(target, libraries, tmp_path / target) / "slm.xcframework"
    source = tmp_path / "program.m"
    source.write_text(
        "@import slm;\nunsigned program(void) { return slm_version() + slm_field_count(0); }\n", encoding="ascii"
    )
    for headers in sorted(framework.glob("*/Headers")):
        flags = ["-fmodules", f"-fmodules-cache-path={tmp_path / 'cache'}", f"-I{headers}", *STRICT]
        with zig_tools() as zig:
            zig(["cc", *flags, str(source), "-o", str(tmp_path / "object")], "the module")
