"""The arm64 kernels on an emulated CPU: the objects of the libraries themselves, in a program for Linux."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from slmc.backends.tvm.kernels.levels import LEVELS, levels
from slmc.backends.tvm.library import NATIVE, Zig, compile_objects, zig_tools
from slmc.runners.native_engine import NativeEngine, load_library, runnable_kernels
from slmc.target import load_target, target_names

from ..native_files import FULL, MODELS, Model
from .native_model import write_model

pytestmark = pytest.mark.build

ANSWER = Path(__file__).parents[1] / "native" / "answer.c"
TRIPLES = sorted(
    {one.triple for name in target_names() for one in load_target(name).native if one.triple.startswith("aarch64-")}
)
ARM64 = levels("aarch64")
EXACT = {level.name for level in LEVELS if level.format.activations == "float32"}

Logits = npt.NDArray[np.float32]
Operation = tuple[str, list[int]]


@dataclass(frozen=True)
class Emulated:
    """The program, and the emulator that runs it."""

    emulator: str
    program: Path

    def run(
        self, weights: Path, kernels: str, operations: Sequence[Operation], threads: int = 1, cpu: str = "max"
    ) -> tuple[str, list[Logits]]:
        """The kernels that ran, and the logits after each operation that reads."""
        words = [f"{name}:{','.join(map(str, values))}" for name, values in operations]
        command = [self.emulator, "-cpu", cpu, str(self.program), str(weights), kernels, str(threads), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        first, *rest = done.stdout.splitlines()
        return first, [np.array([float.fromhex(word) for word in line.split()], np.float32) for line in rest]


@pytest.fixture(scope="module")
def zig() -> Iterator[Zig]:
    """One for all programs, which share its libc then."""
    with zig_tools() as found:
        yield found


@pytest.fixture(scope="module", params=TRIPLES)
def emulated(zig: Zig, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("not run: needs qemu-aarch64-static")
    folder = tmp_path_factory.mktemp(request.param)
    program = folder / "answer"
    objects = compile_objects(zig, request.param, folder)
    flags = ["-target", "aarch64-linux-musl", "-static", f"-I{NATIVE}"]
    zig(["cc", *flags, str(ANSWER), *map(str, objects), "-o", str(program)], str(ANSWER))
    return Emulated(emulator, program)


def operations(model: Model) -> list[Operation]:
    """Prefills shorter and longer than a chunk, and not whole tiles of the kernels; tokens one by one; rewinds."""
    random = np.random.default_rng(2)

    def read(count: int) -> Operation:
        return "read", random.integers(0, model.config.vocab_size - 1, count).tolist()

    return [
        *(read(1), read(1), read(5), read(133), read(1), read(1)),
        *(("rewind", [61]), read(129), read(1)),
        *(("rewind", [0]), read(38), ("rewind", [37]), read(1)),
        *(("rewind", [3]), read(2), read(1)),
    ]


def answers_here(folder: Path, library: Path, kernels: str, operations: Sequence[Operation]) -> list[Logits]:
    engine = NativeEngine(folder, kernels=kernels, library=library)
    found = []
    for name, values in operations:
        if name == "read":
            found.append(engine.extend(values))
        else:
            engine.rewind(values[0])
    return found


def kernels_like(kernels: str, library: Path) -> str:
    """This machine's that take activations as those do, and multiply and add in one step as they do."""
    here = [name for name in runnable_kernels(load_library(library)) if name != "sse2_exact"]
    alike = [name for name in here if (name in EXACT) == (kernels in EXACT)]
    if not alike:
        pytest.skip("not run: needs a CPU with AVX2 to compare with")
    return alike[0]


@pytest.mark.parametrize("model", ["plain", "full"])
@pytest.mark.parametrize("kernels", [level.name for level in ARM64])
def test_logits_are_those_of_this_machine_to_the_bit(
    emulated: Emulated, host_library: Path, kernels: str, model: str, tmp_path: Path
) -> None:
    weights = write_model(tmp_path / "model", MODELS[model])
    asked = operations(MODELS[model])
    wanted = answers_here(weights.parent, host_library, kernels_like(kernels, host_library), asked)
    for threads in (1, 3):
        ran, found = emulated.run(weights, kernels, asked, threads)
        assert ran == kernels
        assert len(found) == len(wanted) == 12
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


CPUS = [("max", ARM64[0].name), ("cortex-a76", "dotprod"), ("cortex-a53", "neon_exact")]
"""What qemu has of everything, a phone's of 2018, and a cheap phone's, which has no dot products."""


@pytest.mark.parametrize(("cpu", "kernels"), CPUS)
def test_a_cpu_gets_the_best_kernels_that_it_has(emulated: Emulated, cpu: str, kernels: str, tmp_path: Path) -> None:
    weights = write_model(tmp_path / "model", FULL)
    asked: list[Operation] = [("read", [1, 2, 3]), ("read", [4])]
    ran, found = emulated.run(weights, "best", asked, cpu=cpu)
    assert ran == kernels
    _, wanted = emulated.run(weights, kernels, asked)
    assert len(found) == len(wanted) == 2
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cpu_refuses_kernels_that_it_lacks(emulated: Emulated, tmp_path: Path) -> None:
    weights = write_model(tmp_path / "model", FULL)
    with pytest.raises(AssertionError, match="this CPU can't run the kernels dotprod"):
        emulated.run(weights, "dotprod", [("read", [1])], cpu="cortex-a53")
