"""slm-run for iOS: a library that an app links, its project, and what it notes of its end."""

from __future__ import annotations

import plistlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import lief
import pytest
import yaml
from click.testing import CliRunner

from slmc import digest
from slmc.backends.tvm.library import zig_tools
from slmc.backends.tvm.runner import FOLDER, build_runner
from slmc.backends.tvm.runner_project import DIGEST
from slmc.cli import devices
from slmc.errors import InputError
from slmc.target import load_target

from .test_native_libraries import macho, of_libsystem, os_version

pytestmark = pytest.mark.build

TRIPLE = load_target("ios").native[0].triple
CRASH = """
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include "slm_run.h"
int main(int count, char **words) {
  slm_note_signals(open(words[1], O_WRONLY | O_CREAT, 0644));
  const int number = atoi(words[2]);
  if (number == SIGABRT)
    abort();
  if (number == SIGSEGV)
    *(volatile int *)(size_t)count = 0;
  raise(number);
  return 0;
}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `slmc devices` writes it."""
    folder = tmp_path_factory.mktemp("runner app")
    return written(folder / "SlmcRunner", folder / "store")


def written(folder: Path, store: Path) -> Path:
    words = ["--runner-app", str(folder), "--store", str(store)]
    assert CliRunner().invoke(devices.command, words, catch_exceptions=False).exit_code == 0
    return folder


def library(project: Path) -> Path:
    return project / "slm_run.xcframework" / "ios-arm64" / "libslm_run.a"


def test_what_the_project_names_is_there(project: Path) -> None:
    app = yaml.safe_load((project / "project.yml").read_text(encoding="utf-8"))["targets"]["SlmcRunner"]
    named = [one if isinstance(one, str) else one["path"] for one in app["sources"]]
    named += [one["framework"] for one in app["dependencies"]]
    assert named == ["Sources", DIGEST, "slm_run.xcframework"]
    assert all((project / name).exists() for name in named)
    assert (project / DIGEST).read_text() == f"{digest.of_file(library(project))}\n"


def test_the_framework_has_its_slice(project: Path) -> None:
    framework = project / "slm_run.xcframework"
    [part] = plistlib.loads((framework / "Info.plist").read_bytes())["AvailableLibraries"]
    assert (part["SupportedPlatform"], part["SupportedArchitectures"]) == ("ios", ["arm64"])
    assert framework / part["LibraryIdentifier"] / part["LibraryPath"] == library(project)
    headers = framework / part["LibraryIdentifier"] / part["HeadersPath"] / "slm_run"
    assert (headers / "slm_run.h").read_bytes() == (FOLDER / "slm_run.h").read_bytes()
    assert 'module slm_run {\n  header "slm_run.h"' in (headers / "module.modulemap").read_text()


def test_the_same_bytes_again(project: Path, tmp_path: Path) -> None:
    again = written(tmp_path / "SlmcRunner", tmp_path / "store")
    assert digest.of_folder(again) == digest.of_folder(project)


def test_a_folder_that_is_there_is_left_alone(project: Path) -> None:
    before = digest.of_folder(project)
    asked = CliRunner().invoke(devices.command, ["--runner-app", str(project)])
    assert isinstance(asked.exception, InputError)
    assert digest.of_folder(project) == before


def test_the_library_is_a_phones(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ziglang", "ar", "x", str(library(project))]
    subprocess.run(command, cwd=tmp_path, check=True)
    binaries = {path.name: macho(path) for path in tmp_path.iterdir()}
    assert {"runner-run.c.o", "runner-signals.c.o", "session.c.o"} < binaries.keys()
    assert "runner-main.c.o" not in binaries
    defined: set[str] = set()
    undefined: set[str] = set()
    for binary in binaries.values():
        assert binary.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.IOS
        assert list(binary.build_version.minos) == os_version(TRIPLE)
        for symbol in binary.symbols:
            is_undefined = symbol.type == lief.MachO.Symbol.TYPE.UNDEFINED
            (undefined if is_undefined else defined).add(str(symbol.name))
    assert {"_slm_run", "_slm_note_signals", "_slm_open"} <= defined
    assert "_main" not in defined
    assert undefined - defined <= of_libsystem()
    assert "_exit" not in undefined  # the app tells how it went


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash")
    (folder / "crash.c").write_text(CRASH)
    with zig_tools() as zig:
        sources = [str(folder / "crash.c"), str(FOLDER / "signals.c")]
        flags = ["-std=c11", "-O1", "-D_DEFAULT_SOURCE", "-fno-sanitize=all", f"-I{FOLDER}"]
        zig(["cc", *flags, *sources, "-o", str(folder / "crash")], "host")
    return folder / "crash"


@pytest.mark.parametrize(
    ("number", "noted"),
    [
        (signal.SIGSEGV, True),
        (signal.SIGABRT, True),
        (signal.SIGBUS, True),
        (signal.SIGILL, True),
        (signal.SIGKILL, False),
        (signal.SIGTERM, False),
    ],
)
def test_what_ends_it_is_noted(crashing: Path, tmp_path: Path, number: signal.Signals, noted: bool) -> None:
    done = subprocess.run([crashing, tmp_path / "signal", str(int(number))], check=False, timeout=60)
    assert done.returncode == -number
    assert (tmp_path / "signal").read_bytes() == (bytes([number]) if noted else b"")


def test_the_program_is_the_same_function(tmp_path: Path) -> None:
    """What the command line can't be meant so ends it from deep within."""
    build_runner("x86_64-linux-gnu", tmp_path / "slm-run")
    for words, code in (([], 2), (["--nonsense", "1"], 2)):
        done = subprocess.run([tmp_path / "slm-run", *words], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, bool(re.match("missing|no such option", done.stderr))) == (code, True)
