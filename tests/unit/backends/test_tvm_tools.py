from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from slmc.backends.tvm.parameters import packed_shape, stored_tensors

from slmc.backends.tvm import tools
from slmc.backends.tvm.link import library_name, link_arguments
from slmc.config_json import parse_architecture
from slmc.errors import CompileError, MissingToolError
from slmc.models.compiled import ALIGNMENT
from slmc.models.decoder import decoder_parameters
from slmc.names import Bits

from ..conftest import CONFIG


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
    ("triple", "name", "begins"),
    [
        ("x86_64-linux-gnu", "model.so", ["ld.lld", "-shared"]),
        ("aarch64-linux-gnu", "model.so", ["ld.lld", "-shared"]),
        ("arm64-apple-macosx13.0", "model.dylib", ["cc", "-target", "aarch64-macos.13.0"]),
    ],
)
def test_the_linker_of_each_system(triple: str, name: str, begins: list[str]) -> None:
    assert library_name(triple) == name
    arguments = link_arguments(triple, name)
    assert arguments[: len(begins)] == begins
    assert any(name in argument for argument in arguments[len(begins) :])


def test_another_system_is_refused() -> None:
    with pytest.raises(CompileError, match="no way to link"):
        link_arguments("riscv64-unknown-freebsd", "model.so")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("vocabulary", [1, 300, 1003])
@pytest.mark.parametrize("heads", [(2, 1, 32), (4, 4, 16), (3, 1, 96)])
def test_every_stored_tensor_keeps_the_next_one_aligned(
    heads: tuple[int, int, int], vocabulary: int, group: int, bits: Bits
) -> None:
    """The file begins its data aligned, so sizes that are multiples of the alignment keep all of it so."""
    count, shared, size = heads
    config = CONFIG | {
        "model_type": "qwen2",
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "num_attention_heads": count,
        "num_key_value_heads": shared,
        "head_dim": size,
    }
    architecture = parse_architecture(config, Path("config.json"))
    matrices = [parameter for parameter in decoder_parameters(architecture) if parameter.is_matrix]
    shapes = {matrix.name: packed_shape(matrix, group, bits) for matrix in matrices}
    odd = [tensor.name for tensor in stored_tensors(architecture, shapes, 13) if tensor.size % ALIGNMENT]
    assert odd == []
