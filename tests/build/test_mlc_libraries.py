"""Model libraries of every target, read as the systems' linkers and loaders read them."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lief
import numpy as np
import pytest

from slmc.backends.mlc.described import read_description
from slmc.backends.mlc.library.settings import Settings
from slmc.backends.tvm.library import zig_tools
from slmc.models.mlc import MlcDecoder, read_mlc
from slmc.names import TargetName
from slmc.runners.mlc_engine import MlcEngine, load_weights

from .family_case import ids, quantized
from .in_process import programs
from .mlc_model import CHUNK, compiled, order
from .variants import CONTEXT, VARIANTS

tvm = pytest.importorskip("tvm")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries
lief.logging.disable()
APP = {"slmc_first": "llama: llama3 rope", "slmc_second": "qwen2: untied"}

ENGINES = {
    "TVMFFIEnvModLookupFromImports",
    "TVMFFIEnvModRegisterSystemLibSymbol",
    "TVMFFIErrorSetRaisedFromCStrParts",
    "TVMFFIFunctionCall",
    "TVMFFIHandleInitOnce",
}
"""What MLC's engine brings: nothing else may be called but the system's own."""
LIBC = {"memset", "memcpy", "bzero"}
CONTRACT = {
    "apply_bitmask_inplace",
    "apply_logit_bias_inplace",
    "apply_penalty_inplace",
}
"""Kernels that the engine calls by name; the other functions are the machine's own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[TargetName, tuple[Path, MlcDecoder]]:
    root = tmp_path_factory.mktemp("libraries")
    model = quantized(VARIANTS["llama: llama3 rope"], root)
    targets: list[TargetName] = ["ios", "android", "metal"]
    with programs():
        return {target: (root / target, compiled(model, root / target, order(target, "float16"))) for target in targets}


def objects(folder: Path, decoder: MlcDecoder) -> Iterator[Any]:
    with tarfile.open(folder / decoder.library) as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            file = archive.extractfile(member)
            assert file is not None
            yield lief.parse(list(file.read()))


def test_ios_objects_are_apples(made: dict[TargetName, tuple[Path, MlcDecoder]]) -> None:
    folder, decoder = made["ios"]
    names, wanted = set(), set()
    for one in objects(folder, decoder):
        assert one.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64
        assert one.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.IOS
        assert one.build_version.minos == [18, 0, 0]
        for symbol in one.symbols:
            if not symbol.raw_type & 1:
                continue  # local
            (wanted if symbol.raw_type & 0xE == 0 else names).add(symbol.name.removeprefix("_"))
    assert f"{decoder.model_lib}___tvm_ffi__library_bin" in names, "mlc_llm package looks for it"
    assert wanted <= ENGINES | LIBC
    assert "TVMFFIEnvModRegisterSystemLibSymbol" in wanted, "it registers itself where an app loads it"
    prefixed = {name for name in names if name.startswith(("__tvm_ffi_", decoder.model_lib))}
    assert {f"__tvm_ffi_{decoder.model_lib}_{name}" for name in CONTRACT} <= prefixed


def test_android_objects_are_androids(made: dict[TargetName, tuple[Path, MlcDecoder]]) -> None:
    folder, decoder = made["android"]
    names, wanted = set(), set()
    for one in objects(folder, decoder):
        assert one.header.machine_type == lief.ELF.ARCH.AARCH64
        for symbol in one.symbols:
            if symbol.binding == lief.ELF.Symbol.BINDING.LOCAL or not symbol.name:
                continue
            (wanted if symbol.shndx == 0 else names).add(symbol.name)
    assert f"{decoder.model_lib}___tvm_ffi__library_bin" in names, "mlc_llm package looks for it"
    assert wanted <= ENGINES | LIBC
    assert {f"__tvm_ffi_{decoder.model_lib}_{name}" for name in CONTRACT} <= names


def test_a_macs_library_loads_without_anything_of_slmc(made: dict[TargetName, tuple[Path, MlcDecoder]]) -> None:
    folder, decoder = made["metal"]
    library = lief.parse(str(folder / decoder.library))
    assert library.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64
    assert library.header.file_type == lief.MachO.Header.FILE_TYPE.DYLIB
    assert library.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.MACOS
    assert library.build_version.minos[0] == 13
    assert library.has_code_signature, "Apple silicon runs nothing unsigned"
    wanted = {symbol.name.removeprefix("_") for symbol in library.imported_symbols}
    assert wanted <= ENGINES | LIBC | {"dyld_stub_binder", "__extendhfsf2", "__truncsfhf2"}
    exported = {symbol.name.removeprefix("_") for symbol in library.exported_symbols}
    assert {"__tvm_ffi__library_bin", *(f"__tvm_ffi_{name}" for name in CONTRACT)} <= exported
    needed = {one.name for one in library.libraries if one.name != f"@rpath/{Path(decoder.library).name}"}
    assert needed == {"/usr/lib/libSystem.B.dylib"}


@pytest.mark.parametrize("target", ["ios", "metal"])
def test_metals_source_lies_in_the_library(made: dict[TargetName, tuple[Path, MlcDecoder]], target: TargetName) -> None:
    """It is compiled where it runs. Sums are float32, and nothing is counted in 64 bits."""
    folder, decoder = made[target]
    source = (folder / decoder.library).read_bytes().decode("latin-1")
    kernels = set(re.findall(r"kernel void (\w+)_kernel\(", source))
    plain = {name.removeprefix(f"{decoder.model_lib}_") for name in kernels}
    assert {"norm", "batch_decode_paged_kv", "batch_prefill_paged_kv", "attention_merge", *CONTRACT} <= plain
    products = re.split(r"(?=kernel void )", source)[1:]
    products = [text for text in products if "q4_product" in text.split("(")[0]]
    assert len(products) > 5
    for text in products:
        body = text.split("\n}\n")[0]
        assert "(long)" not in body
        assert re.search(r"thread float \w+\[\d+\]|float \w+\[\d+\]", body), "its sums"
        assert "simdgroup_multiply" not in body


def test_each_library_describes_itself(made: dict[TargetName, tuple[Path, MlcDecoder]]) -> None:
    for folder, decoder in made.values():
        described = read_description(folder / decoder.library)
        assert described.prefill_chunk_size == decoder.chunk
        assert described.memory_usage["prefill"] > described.memory_usage["decode"]


def test_two_models_in_one_app(tmp_path: Path) -> None:
    """Their objects linked into one image, which registers both as it is loaded; each asked by its own name."""
    from slmc.backends.mlc.library.export import compiled as in_memory

    models = {name: quantized(VARIANTS[variant], tmp_path / name) for name, variant in APP.items()}
    linked: list[str] = []
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3" if platform.machine() == "x86_64" else "generic"})
    with programs():
        for name, model in models.items():
            folder = tmp_path / f"{name}-mlc"
            made = compiled(model, folder, order())
            settings = Settings(
                target="host", form="q4f32_1", context=CONTEXT, chunk=CHUNK, model_id=made.model_id, name=name
            )

            def keep(_: str, objects: list[str], name: str = name) -> None:
                for path in objects:
                    linked.append(shutil.copyfile(path, tmp_path / f"{name}-{Path(path).name}"))

            in_memory(folder, settings, target, f"{name}_").export_library(str(tmp_path / "app"), fcompile=keep)
    with zig_tools() as zig:
        zig(["ld.lld", "-shared", "-o", str(tmp_path / "app.so"), *map(str, linked)], "app.so")
    ctypes.CDLL(str(tmp_path / "app.so"), ctypes.RTLD_GLOBAL)
    tokens = ids(20)
    for name in APP:
        machine = tvm.relax.VirtualMachine(tvm.get_global_func("ffi.SystemLib")(f"{name}_"), tvm.cpu())
        folder = tmp_path / f"{name}-mlc"
        weights = load_weights(tvm, machine, folder / read_mlc(folder).model_id, "cpu")
        engine = MlcEngine(folder, folder / read_mlc(folder).library)
        np.testing.assert_array_equal(last_logits(machine, weights, tokens), engine.extend(tokens))


def last_logits(machine: Any, weights: Any, tokens: list[int]) -> Any:
    shape, tensor, state = tvm.runtime.ShapeTuple, tvm.runtime.tensor, "vm.builtin.kv_state_"
    cache = machine["create_tir_paged_kv_cache"](*(shape([size]) for size in (1, CONTEXT, CHUNK, 16, 0)))
    tvm.get_global_func(f"{state}add_sequence")(cache, 0)
    tvm.get_global_func(f"{state}begin_forward")(cache, shape([0]), shape([len(tokens)]))
    embedded = machine["embed"](tensor(np.array(tokens, np.int32)), weights).numpy()[None]
    found = machine["prefill"](tensor(embedded), cache, weights)[0].numpy()[0, 0]
    tvm.get_global_func(f"{state}end_forward")(cache)
    for name in CONTRACT:
        assert machine.module.get_function(name, True) is not None
    return found
