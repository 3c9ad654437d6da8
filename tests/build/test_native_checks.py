"""The native library's C under gcc's sanitizers, with its real kernels, on small weight files.

The drivers are in tests/native; each ends with an error where a condition of its own or a sanitizer's is broken.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import psutil
import pytest

from slmc.backends.tvm.library import SOURCES
from slmc.runners.native_engine import NativeEngine

from .. import native_mutations as places
from ..native_files import MODELS, PLAIN, Model, write
from ..native_mutations import U32, U64, Image, mutated
from ..task_files import task_bytes
from .native_model import write_model

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("gcc") is None, reason="not run: needs gcc, and Linux's sanitizers"
    ),
]

DRIVERS = Path(__file__).parent.parent / "native"
TRIPLE = f"{platform.machine()}-linux-gnu"
FLAGS = ("-std=c11", "-O1", "-g", "-D_DEFAULT_SOURCE", "-DSLM_CODE=1", *(f"-I{folder}" for folder in SOURCES))
MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
THREADS = ("-fsanitize=thread",)
WRAPPED = ("malloc", "calloc", "mmap", "munmap", "pthread_create")
MUTATED, AT_ONCE = 2000, 250

AVX2 = ("avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe")
EXTENSIONS = {
    "avx512vnni": (*AVX2, "avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", "avx512_vnni"),
    "avxvnni": (*AVX2, "avx_vnni", "gfni"),
    "avx2": AVX2,
    "avx2_exact": AVX2,
    "sse2_exact": (),
}
"""What native/cpu.c asks the CPU for before a level is taken, as the assembler calls it."""


def gcc(*arguments: object, cwd: Path) -> None:
    done = subprocess.run(["gcc", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(program: Path, *arguments: object, given: bytes = b"") -> str:
    """What a driver said; it must end well."""
    options = {"ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1"}
    command, environment = [str(program), *map(str, arguments)], {**os.environ, **options}
    done = subprocess.run(command, input=given, env=environment, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return done.stdout.decode()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the assembly of all kernels and the header that names them."""
    folder = tmp_path_factory.mktemp("kernels")
    subprocess.run([sys.executable, "-m", "slmc.backends.tvm.codegen", TRIPLE, folder], check=True, capture_output=True)
    return folder


def build(kernels: Path, folder: Path, sanitizers: Sequence[str], drivers: Iterable[str]) -> Path:
    """A folder with drivers, linked with the library's sources."""
    flags = [*FLAGS, *sanitizers, f"-I{kernels}"]
    sources = [*(source for found in SOURCES for source in sorted(found.glob("*.c"))), *sorted(kernels.glob("*.s"))]
    gcc(*flags, "-c", *sources, cwd=folder)
    objects = [f"{source.stem}.o" for source in sources]
    for name in drivers:
        wrapped = [f"-Wl,--wrap={function}" for function in WRAPPED] if name == "allocations" else []
        gcc(*flags, *wrapped, DRIVERS / f"{name}.c", *objects, "-o", name, "-lm", "-pthread", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def memory(kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    drivers = ["interface", "allocations", "guarded", "fuzz_weights", "fuzz_task"]
    return build(kernels, tmp_path_factory.mktemp("memory"), MEMORY, drivers)


@pytest.fixture(scope="module")
def threads(kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(kernels, tmp_path_factory.mktemp("threads"), THREADS, ["threads"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a weight file of each model."""
    folder = tmp_path_factory.mktemp("files")
    for name, model in MODELS.items():
        write(folder / f"{name}.slm", model)
    return folder


@pytest.fixture(params=MODELS)
def file(request: pytest.FixtureRequest, files: Path) -> Path:
    return files / f"{request.param}.slm"


CHECKS = ("reading", "contexts", "answers", "cancelled", "wrong_arguments", "hundred")


@pytest.mark.parametrize("check", CHECKS)
def test_the_interface_breaks_no_memory(memory: Path, file: Path, check: str) -> None:
    run(memory / "interface", check, file)


@pytest.mark.parametrize("model", ["full", "exact"])
def test_a_session_goes_on_after_values_that_are_no_numbers(memory: Path, files: Path, model: str) -> None:
    run(memory / "interface", "numbers", files / f"{model}.slm")


def test_what_can_not_be_mapped_is_told(memory: Path, tmp_path: Path) -> None:
    missing, endless = tmp_path / "missing", tmp_path / ("x" * 250) / ("y" * 250) / ("z" * 250)
    assert run(memory / "interface", "no_file", missing) == f"{missing} can't be opened: No such file or directory\n"
    assert "can't be mapped" in run(memory / "interface", "no_file", tmp_path)
    assert len(run(memory / "interface", "no_file", endless)) == 256


def test_files_of_other_kinds_are_refused(memory: Path, files: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_bytes(b"no weights in here" * 100)
    whole = (files / "plain.slm").read_bytes()
    (tmp_path / "damaged").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "is empty" in run(memory / "interface", "bad_file", tmp_path / "empty")
    assert "not a weight file" in run(memory / "interface", "bad_file", tmp_path / "other")
    assert "SHA-256" in run(memory / "interface", "bad_file", tmp_path / "damaged")


@pytest.mark.parametrize("check", ["none_while_reading", "denied_one_by_one", "hundred"])
def test_what_is_taken_from_the_system(memory: Path, file: Path, check: str) -> None:
    run(memory / "allocations", check, file)


def test_kernels_stay_within_their_arrays(memory: Path, file: Path) -> None:
    run(memory / "guarded", file)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="not run: needs an assembler for x86_64")
@pytest.mark.parametrize("level", EXTENSIONS)
def test_kernels_use_no_more_than_the_cpu_is_asked_for(kernels: Path, tmp_path: Path, level: str) -> None:
    assert set(EXTENSIONS) == {path.stem for path in kernels.glob("*.s")}
    march = "+".join(["generic64", *EXTENSIONS[level]])
    gcc("-c", f"-Wa,-march={march}", kernels / f"{level}.s", "-o", "level.o", cwd=tmp_path)


def test_threads_do_not_race(threads: Path, file: Path) -> None:
    run(threads / "threads", file)


# ---- Weight files that were changed ------------------------------------------------------------------------------


def parsed(memory: Path, images: Iterable[bytes]) -> list[str]:
    """What the reader says of each file; "read" where it is a model, which was then run."""
    given = b"".join(struct.pack(U32, len(image)) + image for image in images)
    return run(memory / "fuzz_weights", given=given).splitlines()


def small(folder: Path, model: Model) -> bytes:
    """A file that is read in no time."""
    write(folder / "small.slm", replace(model, config=replace(model.config, context=32)))
    return (folder / "small.slm").read_bytes()


def header(at: int, value: int, form: str = U32) -> Callable[[Image], None]:
    return lambda image: image.put(at, form, value)


def entry(name: str, at: int, value: int, form: str = U32) -> Callable[[Image], None]:
    return lambda image: image.put(image.entry_of(name) + at, form, value)


def renamed(name: str, other: bytes) -> Callable[[Image], None]:
    return lambda image: image.rename(image.entry_of(name), other)


def rekinded(name: str, kind: int, size: int) -> Callable[[Image], None]:
    """A tensor of another kind with all the bytes that it takes, the file's last."""

    def change(image: Image) -> None:
        found, end = image.entry_of(name), len(image.bytes) + 63 & ~63
        image.resize(end + size)
        image.put(found + places.KIND, U32, kind)
        image.put(found + places.OFFSET, U64, end)
        image.put(found + places.BYTES, U64, size)

    return change


def flipped(image: Image) -> None:
    image.bytes[-1] ^= 1


def shortened(image: Image) -> None:
    del image.bytes[-1]


NO_TENSOR = r"entry \d+ of the table of tensors makes no tensor within the file"
NO_MODEL = "the header's dimensions make no model"
WRONG_SHAPE = "does not have the shape that the model's dimensions ask for"
FAULTS: dict[str, tuple[Callable[[Image], None], str]] = {
    "shorter than its header": (lambda image: image.resize(127), "the file is shorter than its header"),
    "another file": (header(0, 0), "not a weight file of slm"),
    "wrong version": (header(places.VERSION, 2), "a weight file of version 2; this library reads version 1"),
    "cut off": (shortened, r"the file has \d+ bytes, its header says \d+: it was cut off or .*"),
    "too many tensors": (header(places.TENSORS, 1 << 15), NO_MODEL),
    "table beyond the file": (header(places.TENSORS, 1 << 14), "the table of tensors goes beyond the file"),
    "no layers": (header(places.LAYERS, 0), NO_MODEL),
    "no vocabulary": (header(places.CONFIG, 0), NO_MODEL),
    "epsilon is no number": (header(places.CONFIG + 48, 0x7FC00000), NO_MODEL),
    "no such rope": (header(places.FIRST_LAYER + 8, 1), "layer 1 names a rope table that is not there"),
    "endless name": (renamed("norm", b"n" * 48), NO_TENSOR),
    "no such kind": (entry("norm", places.KIND, 3), NO_TENSOR),
    "no rows": (entry("norm", places.ROWS, 0), NO_TENSOR),
    "too many rows": (entry("norm", places.ROWS, (1 << 24) + 1), NO_TENSOR),
    "rows of no tile": (entry("embedding", places.ROWS, 33), NO_TENSOR),
    "columns of no group": (entry("embedding", places.COLUMNS, 16), NO_TENSOR),
    "another size": (entry("norm", places.BYTES, 64, U64), NO_TENSOR),
    "off its alignment": (entry("norm", places.OFFSET, 4096 + 32, U64), NO_TENSOR),
    "within the header": (entry("norm", places.OFFSET, 64, U64), NO_TENSOR),
    "beyond the file": (entry("norm", places.OFFSET, 1 << 20, U64), NO_TENSOR),
    "around all addresses": (entry("norm", places.OFFSET, (1 << 64) - 64, U64), NO_TENSOR),
    "missing": (renamed("layers.1.o", b"layers.2.o"), r"tensor layers\.1\.o is missing"),
    "twice": (renamed("norm", b"embedding"), "tensor norm is missing"),
    "wrong shape": (header(places.CONFIG + 4, 64), f"tensor embedding {WRONG_SHAPE}"),
    "wrong shape of floats": (renamed("layers.0.qkv", b"norm"), f"tensor norm {WRONG_SHAPE}"),
    "floats as codes": (rekinded("ropes.0.sines", 2, 32 * 32 + 32 * 2), r"tensor ropes\.0\.sines is not float32"),
    "codes as floats": (rekinded("layers.1.down", 0, 32 * 96 * 4), r"tensor layers\.1\.down is not quantized"),
    "damaged": (flipped, "the file is damaged: its bytes don't have the SHA-256 in its header"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(memory: Path, tmp_path: Path, fault: str) -> None:
    change, wanted = FAULTS[fault]
    # A rope table of [32, 32], which might be a matrix.
    model = replace(PLAIN, config=replace(PLAIN.config, head_dim=64, rotary_dim=64))
    image = Image(small(tmp_path, model))
    change(image)
    [found] = parsed(memory, [bytes(image.bytes)])
    assert re.fullmatch(wanted, found)


@pytest.mark.parametrize("model", MODELS)
def test_thousands_of_changed_files_are_read_or_refused(memory: Path, tmp_path: Path, model: str) -> None:
    """An error of the sanitizers, or a refusal without a text, ends the driver."""
    whole, random = small(tmp_path, MODELS[model]), Random(model)
    found: list[str] = []
    while len(found) < MUTATED:
        found += parsed(memory, [whole, *(mutated(whole, random) for _ in range(AT_ONCE))])
        assert found[-AT_ONCE - 1] == "read"
    read = [text for text in found if text == "read" or "SHA-256" in text]
    assert MUTATED * 0.1 < len(read) < MUTATED * 0.5
    assert len({re.sub(r"\d+", "", text) for text in found}) > 20


def test_the_order_of_the_table_is_free(memory: Path, tmp_path: Path) -> None:
    image = Image(small(tmp_path, PLAIN))
    ends = range(image.table, image.entry(image.entries) + 1, places.ENTRY_SIZE)
    entries = [bytes(image.bytes[start:end]) for start, end in pairwise(ends)]
    image.bytes[image.table : image.entry(image.entries)] = b"".join(reversed(entries))
    [found] = parsed(memory, [bytes(image.bytes)])
    assert "SHA-256" in found  # read, but for the digest


# ---- Task files that were changed --------------------------------------------------------------------------------


def changed(whole: bytes, random: Random) -> bytes:
    """A few bytes changed, anywhere or in the first numbers of a section; or cut off; or a section moved."""
    image = bytearray(whole)
    entries = range(64, 64 + 24 * struct.unpack_from(U32, whole, 12)[0], 24)
    for _ in range(random.randint(1, 3)):
        entry = random.choice(entries)
        begin, size = struct.unpack_from("<QQ", whole, entry + 8)
        match random.randrange(5):
            case 0:
                image[random.randrange(64, len(image))] = random.randrange(256)
            case 1 if size >= 4:
                at = begin + 4 * random.randrange(min(size // 4, 300))
                struct.pack_into(U32, image, at, random.choice((0, 1, 255, 1 << 16, 1 << 24, (1 << 32) - 1)))
            case 2 if size:
                image[begin + random.randrange(size)] ^= 1 << random.randrange(8)
            case 3:
                struct.pack_into(U64, image, entry + 16, random.randrange(size + 64))
            case _:
                struct.pack_into(U32, image, entry, random.randrange(24))
    return bytes(image)


@pytest.mark.parametrize("kind", ["qwen", "gemma", "unigram_bytes", "bert"])
def test_thousands_of_changed_task_files_are_used_or_refused(memory: Path, tmp_path: Path, kind: str) -> None:
    """An error of the sanitizers, text that is no UTF-8, or a refusal without a text, ends the driver."""
    whole, random = task_bytes(tmp_path, kind), Random(kind)
    images = [whole, *(changed(whole, random) for _ in range(MUTATED // 4))]
    given = b"".join(struct.pack(U32, len(image)) + image for image in images)
    found = run(memory / "fuzz_task", given=given).splitlines()
    assert found[0] == "read"
    assert MUTATED * 0.02 < found.count("read") < MUTATED * 0.2
    assert len({re.sub(r"\d+", "", text) for text in found}) > 8


# ---- The library as it ships -------------------------------------------------------------------------------------


def test_a_hundred_sessions_leave_no_memory_behind(host_library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_model(folder, MODELS["full"])

    def sessions(count: int) -> int:
        """Opened, used and closed; what one of them took."""
        for _ in range(count):
            engine = NativeEngine(folder, threads=2, library=host_library)
            engine.extend([i % 90 for i in range(150)])
            engine.top(3)
        return int(engine.stats().memory_bytes)

    sessions(10)
    before = psutil.Process().memory_info().rss
    taken = sessions(100)
    assert psutil.Process().memory_info().rss - before < 5 * taken
