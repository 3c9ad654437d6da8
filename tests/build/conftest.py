"""The demo recipe, built once for all tests that look at a whole bundle; fewer items than in earnest."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from slmc.backends.tvm.library import zig_tools
from slmc.pipeline import Built, build
from slmc.plan import Plan, resolve
from slmc.recipe import load_recipe
from slmc.store import Store
from slmc.target import load_target, native_triples, targets_folder
from slmc.text import NATIVE as TEXT

from .family_case import case  # noqa: F401 - a fixture

DEMO = targets_folder().parent / "recipes" / "intent-router"
LIMIT = 600


@dataclass(frozen=True)
class Demo:
    plan: Plan
    store: Store
    out: Path
    built: Built


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    root = tmp_path_factory.mktemp("demo")
    plan = resolve(load_recipe(DEMO), load_target("host"))
    store = Store(root / "store")
    return Demo(plan, store, root / "DIST", build(plan, store, root / "DIST", limit=LIMIT))


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine's native library, built once for all tests that want one."""
    from slmc.backends.tvm.library import build_library
    from slmc.backends.tvm.link import library_name

    [triple] = native_triples(load_target("host"))
    path = tmp_path_factory.mktemp("library") / library_name(triple)
    build_library(triple, path)
    return path


@pytest.fixture(scope="session")
def java_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its native methods for Java."""
    from slmc.backends.tvm.library import build_library
    from slmc.backends.tvm.link import library_name

    [triple] = native_triples(load_target("host"))
    path = tmp_path_factory.mktemp("java") / library_name(triple)
    build_library(triple, path, java=True)
    return path


@pytest.fixture(scope="session")
def native_text(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The C of task files alone, which ends the process where its behaviour is undefined."""
    path = tmp_path_factory.mktemp("text") / "libtext.so"
    flags = ["-std=c11", "-O1", "-g", "-shared", "-fPIC", "-D_DEFAULT_SOURCE", "-fsanitize=undefined"]
    with zig_tools() as zig:
        zig(["cc", *flags, "-fsanitize-trap=undefined", *map(str, TEXT.glob("*.c")), "-o", str(path)], "host")
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="session")
def compile_here(host_library: Path) -> Callable[..., None]:
    """`compile_model` for this machine, its library not built again."""
    from slmc.backends.tvm.compile import compile_model

    def build(triple: str, path: Path) -> None:
        shutil.copyfile(host_library, path)

    triples = native_triples(load_target("host"))
    return lambda model, out, **options: compile_model(
        model, out, lambda _: None, triples=triples, build=build, **options
    )
