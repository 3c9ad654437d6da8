"""The library's Java interface in this machine's JVM, against the same library through ctypes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pytest

from slmc.backends.tvm.library import NATIVE
from slmc.runners.native_engine import NativeEngine, load_library, runnable_kernels

from ..native_files import FULL
from .java import run_java
from .native_model import write_model

pytestmark = pytest.mark.build

PROGRAMS = Path(__file__).parents[1] / "native"
SOURCES = [*sorted(NATIVE.glob("java/org/slmc/*.java")), *sorted(PROGRAMS.glob("*.java"))]
EXCEPTION = Path("org/slmc/SlmException.class")
BAD_ARGUMENT, NO_FILE, BAD_FILE, BAD_CPU, CONTEXT_FULL, CANCELLED, BAD_NUMBERS = 1, 2, 3, 4, 6, 7, 8
OTHERS = {
    "open no file": NO_FILE,
    "open up to a zero": NO_FILE,
    "open another file": BAD_FILE,
    "open with no such kernels": BAD_CPU,
    "prefill beyond the context": CONTEXT_FULL,
    "decode when cancelled": CANCELLED,
    "decode to no numbers": BAD_NUMBERS,
}
"""The calls of Refusals.java that end with another status than SLM_BAD_ARGUMENT."""


@dataclass(frozen=True)
class Java:
    library: Path
    classes: Path

    def run(self, program: str, *arguments: str, classes: Path | None = None) -> list[str]:
        """The lines that it prints."""
        path = ["-cp", str(classes or self.classes), f"-Djava.library.path={self.library.parent}"]
        return run_java([*path, program, *arguments], timeout_s=120)


@pytest.fixture(scope="module")
def java(java_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Java:
    if not (shutil.which("javac") and shutil.which("java")):
        pytest.skip("not run: needs javac and java")
    folder = tmp_path_factory.mktemp("java")
    # Java 8 is what every Android build takes; that a JDK finds it old is no news.
    flags = ["-Xlint:all,-options", "-Werror", "--release", "8", "-encoding", "UTF-8", "-d", str(folder / "classes")]
    subprocess.run(["javac", *flags, *map(str, SOURCES)], check=True)
    return Java(java_library, folder / "classes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "modèle 😀", FULL)


def numbers(lines: Sequence[str]) -> list[list[float]]:
    return [[float.fromhex(word) if "0x" in word else float(word) for word in line.split()] for line in lines]


def test_java_gets_what_c_gives_to_the_bit(java: Java, weights: Path) -> None:
    ids = np.random.default_rng(1).integers(0, 99, 150).tolist()
    continuations = [[1, 2, 3], [4], [98, 5]]
    slm = load_library(java.library)
    for level in runnable_kernels(slm):
        engine = NativeEngine(weights.parent, threads=2, kernels=level, library=java.library)
        operations = [
            "prefill:" + ",".join(map(str, ids)),
            "decode:7",
            "top:5",
            "continuations:" + ";".join(",".join(map(str, one)) for one in continuations),
            "rewind:100",
            "decode:3",
        ]
        first, *rest = java.run("Answers", quote_plus(str(weights)), level, "2", *operations)
        assert first == f"{slm.slm_version()} {engine.vocab_size} {engine.context} {level}"
        wanted = [engine.extend(ids).tolist(), engine.extend([7]).tolist()]
        top = engine.top(5)
        wanted.append([*(token for token, _ in top), *(logprob for _, logprob in top)])
        wanted.append(engine.continuations(continuations))
        engine.rewind(100)
        wanted += [[100], engine.extend([3]).tolist()]
        assert numbers(rest) == wanted


def refusals(java: Java, weights: Path, classes: Path | None = None) -> dict[str, list[str]]:
    lines = java.run("Refusals", str(weights), str(weights.parent / "model.json"), classes=classes)
    assert lines.pop() == "position 3"
    return {name: rest for name, *rest in (line.split("|") for line in lines)}


def test_what_fails_throws_its_status(java: Java, tmp_path: Path) -> None:
    found = refusals(java, write_model(tmp_path / "model", FULL))
    assert set(OTHERS) < set(found)
    for name, rest in found.items():
        kind, message, status = rest
        assert (name, kind, int(status)) == (name, "org.slmc.SlmException", OTHERS.get(name, BAD_ARGUMENT))
        assert message.startswith(f"{status}: ")
        assert message.isascii()
    # Its letters by the bytes that they have in UTF-8, the last one four of them.
    assert "model.slmm??d??l ???? can't be opened" in found["open no file"][1]


def test_without_its_class_an_exception_is_another(java: Java, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    shutil.copytree(java.classes, classes)
    (classes / EXCEPTION).unlink()
    weights = write_model(tmp_path / "model", FULL)
    for name, rest in refusals(java, weights, classes).items():
        assert (name, rest[0]) == (name, "java.lang.RuntimeException")
        assert rest[1].startswith(f"{OTHERS.get(name, BAD_ARGUMENT)}: ")


def test_the_functions_lie_where_a_jdk_has_them() -> None:
    compiler = shutil.which("javac")
    header = Path(compiler or "javac").resolve().parents[1] / "include" / "jni.h"
    if not header.is_file():
        pytest.skip("not run: needs a JDK's jni.h")
    text = header.read_text(encoding="utf-8")
    table = text[text.index("struct JNINativeInterface_ {") :]
    places = [name or unused for name, unused in re.findall(r"\(JNICALL \*(\w+)\)|(reserved\d)", table)]
    ours = re.findall(r"^JNI_AT\((\d+), (\w+)\)", (NATIVE / "jni_abi.h").read_text(encoding="ascii"), re.MULTILINE)
    assert len(ours) == 23
    assert [(int(index), name) for index, name in ours] == [(places.index(name), name) for _, name in ours]
