"""The arm64 kernels on an emulated CPU: the objects of the libraries themselves, in a program for Linux."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from slmc.backends.tvm.kernels.levels import LEVELS, levels
from slmc.backends.tvm.library import SOURCES, Zig, compile_objects, zig_tools
from slmc.runners.native_decider import NativeDecider
from slmc.runners.native_engine import NativeEngine, load_library, runnable_kernels
from slmc.target import load_target, target_names
from slmc.text.golden import Golden
from slmc.text.task import Task, write_task

from ..native_files import FULL, MODELS, Model
from ..task_files import LABELS, codec, task_bytes
from .native_model import write_model

pytestmark = pytest.mark.build

ANSWER, DECIDE = (Path(__file__).parents[1] / "native" / name for name in ("answer.c", "decide.c"))
TRIPLES = sorted(
    {one.triple for name in target_names() for one in load_target(name).native if one.triple.startswith("aarch64-")}
)
ARM64 = levels("aarch64")
EXACT = {level.name for level in LEVELS if level.format.activations == "float32"}

Logits = npt.NDArray[np.float32]
Operation = tuple[str, list[int]]


@dataclass(frozen=True)
class Emulated:
    """The programs, and the emulator that runs them."""

    emulator: str
    program: Path
    decider: Path

    def decide(self, cpu: str, *arguments: object) -> list[str]:
        """The lines that tests/native/decide.c prints."""
        command = [self.emulator, "-cpu", cpu, str(self.decider), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

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
    objects = compile_objects(zig, request.param, folder)
    flags = ["-target", "aarch64-linux-musl", "-static", *(f"-I{folder}" for folder in SOURCES)]
    for source in (ANSWER, DECIDE):
        zig(["cc", *flags, str(source), *map(str, objects), "-o", str(folder / source.stem)], str(source))
    return Emulated(emulator, folder / ANSWER.stem, folder / DECIDE.stem)


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


@pytest.mark.parametrize(("cpu", "kernels"), CPUS)
def test_decisions_are_those_of_this_machine(
    emulated: Emulated, host_library: Path, cpu: str, kernels: str, tmp_path: Path
) -> None:
    """A task and a prefix that were made here: the canary is content there, and a decision the same to the bit. A CPU
    without dot products takes exact kernels, whose prefix is another; its numbers are near.
    """
    weights = write_model(tmp_path / "model", replace(FULL, config=replace(FULL.config, vocab_size=1000)))
    task_bytes(tmp_path, "llama3")
    path, fields = tmp_path / "task.slm", {"text": "weather in Zürich", "more": "7"}
    here = kernels_like(kernels if kernels not in EXACT else "dotprod", host_library)
    decider = NativeDecider(weights.parent, path, kernels=here, library=host_library)
    asked = [{"text": text, "more": "x"} for text in ("a", "Съешь же ещё", "いろは", "")]
    golden = [
        Golden(str(number), one, found.prompt_ids, found.choice, found.probability)
        for number, (one, found) in enumerate((one, decider.classify(one)) for one in asked)
    ]
    (tmp_path / "prefix.slm").write_bytes(decider.prefix())
    task = Task(tmp_path / "tokenizer.json", codec("llama3"), LABELS, asked)
    write_task(task, tmp_path / "golden.slm", golden)
    ran, taken, canary, decided = emulated.decide(
        cpu, weights, tmp_path / "golden.slm", tmp_path / "prefix.slm", *fields.values()
    )
    assert (ran, taken, canary.strip()) == (kernels, str(int(kernels not in EXACT)), f"{len(asked)} -1")
    choice, logprob = decided.split()
    found = decider.classify(fields)
    assert int(choice) == found.choice
    tolerance = 0.1 if kernels in EXACT else 1e-12
    assert float.fromhex(logprob) == pytest.approx(found.logprobs[found.choice], abs=tolerance)
