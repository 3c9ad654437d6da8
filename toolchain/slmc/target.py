"""Where a bundle ships: the facts of `targets/<name>/target.toml`, strictly read into frozen types."""

from __future__ import annotations

import platform
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import Field

from slmc import digest
from slmc.errors import CompileError, InputError, RecipeError, did_you_mean
from slmc.names import BackendName, DelegateName, TargetName
from slmc.strict import Strict, parse

MIB = 1024 * 1024
Mebibytes = Annotated[int, Field(gt=0)]


class DeviceClass(Strict):
    """A kind of device, and the memory that one process may use on it."""

    name: str
    ram_mib: Mebibytes
    process_mib: Mebibytes
    source: str = Field(description="where the figure comes from, and whether it was measured")


class Layout(Strict):
    """Folders inside the bundle."""

    artifact: str = "model"
    tokenizer: str = "tokenizer"


class NativeBuild(Strict):
    """A system that the tvm backend builds its native library for."""

    triple: str = Field(description="LLVM's, with the oldest version of the system that runs it")
    system: Literal["linux", "darwin"] | None = Field(
        default=None, description="for the host: as `platform.system()` says, in lower case"
    )
    machine: str | None = Field(default=None, description="for the host: as `platform.machine()` says, in lower case")


class Target(Strict):
    name: TargetName
    title: str
    minimum_os: str
    backends: Annotated[tuple[BackendName, ...], Field(min_length=1)] = Field(description="in order of preference")
    delegates: dict[BackendName, tuple[DelegateName, ...]] = Field(
        default_factory=dict, description="what can run the matrix products, by backend, in order of preference"
    )
    prefill_chunk: Annotated[int, Field(gt=0)] = Field(
        default=64, description="backend coreml: tokens that one call reads of a prompt"
    )
    device_classes: tuple[DeviceClass, ...] = Field(
        default=(), description="empty for the host, whose memory is measured"
    )
    layout: Layout = Layout()
    native: tuple[NativeBuild, ...] = ()

    def digest(self) -> str:
        return digest.of_value(self.model_dump(mode="json"))

    def memory_classes(self) -> tuple[DeviceClass, ...]:
        """The classes to plan for; for the host, this machine."""
        if self.device_classes:
            return self.device_classes
        ram = psutil.virtual_memory().total // MIB
        return (DeviceClass(name="this machine", ram_mib=ram, process_mib=ram, source="measured now"),)


def targets_folder() -> Path:
    """The facts inside an installed package, else the repository's own."""
    installed = Path(__file__).parent / "_targets"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "targets"


def target_names() -> list[str]:
    return sorted(path.parent.name for path in targets_folder().glob("*/target.toml"))


def load_target(name: str) -> Target:
    path = targets_folder() / name / "target.toml"
    if name not in target_names():
        raise InputError(f"no target {name!r}", todo=did_you_mean(name, target_names()))
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"target.toml can't be read: {error}", where=path) from None
    return parse(Target, raw, path, RecipeError)


def native_triples(target: Target) -> tuple[str, ...]:
    """What the tvm backend builds for: all of a target's, of the host's this machine's.

    Raises CompileError where there is none.
    """
    if target.name != "host":
        return tuple(build.triple for build in target.native)
    here = (platform.system().lower(), platform.machine().lower())
    found = tuple(build.triple for build in target.native if (build.system, build.machine) == here)
    if not found:
        known = [f"{build.system} {build.machine}" for build in target.native]
        raise CompileError(
            f"no way to compile for {' '.join(here)}",
            where=targets_folder() / target.name / "target.toml",
            expected=f"one of {', '.join(known)}" if known else "a [[native]] section",
        )
    return found
