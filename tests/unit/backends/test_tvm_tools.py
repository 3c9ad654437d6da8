from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import pytest

from slmc.backends.tvm import tools
from slmc.backends.tvm.link import System, library_name, system_of
from slmc.errors import CompileError, MissingToolError
from slmc.target import load_target, target_names


def installed(versions: dict[str, str]) -> Callable[[str], str]:
    def version(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    return version


GOOD = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post0", "ziglang": "0.15.2"}


def test_the_tested_pair_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", installed(GOOD))
    tools.check_tools()
    assert tools.versions() == GOOD


@pytest.mark.parametrize("package", GOOD)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(metadata, "version", installed({name: GOOD[name] for name in GOOD if name != package}))
    with pytest.raises(MissingToolError, match=f"{package} is not installed") as caught:
        tools.check_tools()
    assert caught.value.todo == "pip install 'slmc[tvm]'"


def test_the_pair_that_crashes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", installed(GOOD | {"apache-tvm-ffi": "0.1.15.post2"}))
    with pytest.raises(MissingToolError, match="not a pair") as caught:
        tools.check_tools()
    assert caught.value.todo == "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post0"


@pytest.mark.parametrize(
    ("triple", "name", "system"),
    [
        ("x86_64-linux-gnu", "libslm.so", System("x86_64", "linux", "", simulator=False)),
        ("aarch64-linux-gnu", "libslm.so", System("aarch64", "linux", "", simulator=False)),
        ("aarch64-linux-android29", "libslm.so", System("aarch64", "android", "", simulator=False)),
        ("arm64-apple-macosx13.0", "libslm.dylib", System("aarch64", "macos", "13.0", simulator=False)),
        ("arm64-apple-ios18.0", "libslm.a", System("aarch64", "ios", "18.0", simulator=False)),
        ("arm64-apple-ios18.0-simulator", "libslm.a", System("aarch64", "ios", "18.0", simulator=True)),
    ],
)
def test_a_triple_says_what_is_built(triple: str, name: str, system: System) -> None:
    assert system_of(triple) == system
    assert library_name(triple) == name


@pytest.mark.parametrize("triple", ["riscv64-unknown-freebsd", "x86_64-linux-musl", "arm64-apple-tvos18.0", ""])
def test_another_system_is_refused(triple: str) -> None:
    with pytest.raises(CompileError, match="no way to build"):
        system_of(triple)


def test_every_target_names_systems_that_can_be_built() -> None:
    for name in target_names():
        for build in load_target(name).native:
            system_of(build.triple)
