"""MLC's weight files, read here by their format alone and unpacked by MLC's formula."""

from __future__ import annotations

import gc
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from slmc.architecture import FAMILIES, Family, TensorSpec
from slmc.artifacts import MergedCheckpoint
from slmc.backends.mlc import shards
from slmc.backends.mlc.names import Weight, weights
from slmc.backends.mlc.shards import ShardWriter, stored_codes
from slmc.backends.mlc.tensors import Format, Tensor, blocks, quantized_weights, tensors
from slmc.backends.mlc.weights import Written, write_weights
from slmc.checkpoint.reader import open_checkpoint
from slmc.errors import CompileError
from slmc.names import SchemeName
from slmc.quant.decisions import decide
from slmc.quant.reader import QuantizedReader
from slmc.quant.schemes import SCHEMES
from slmc.quant.writer import quantized_checkpoint

from ..checkpoint.models import write_checkpoint
from ..configs import changed

SMALL = {"vocab_size": 24, "hidden_size": 128, "head_dim": 32}
SOME = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Arrays = dict[str, np.ndarray]
Scales = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def ignore(weights: int) -> None:
    pass


def ones(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.ones(shape, np.float32)


def wide(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Any that fp16 can hold, and smaller ones."""
    return np.exp2(random.uniform(-30, 15.9, shape)).astype(ml_dtypes.bfloat16).astype(np.float32)


def alike(scale: float) -> Scales:
    return lambda random, shape: np.full(shape, scale, np.float32)


def quantized(
    folder: Path,
    family: Family = "qwen3",
    scheme: SchemeName = "int4-g32",
    scales: Scales = ones,
    keep: tuple[str, ...] = (),
    seed: int = 0,
    **change: object,
) -> QuantizedReader:
    """A checkpoint of random codes."""
    if family == "phi3":
        change["head_dim"] = 16  # of which its rope's factors are
    config: dict[str, Any] = changed(family, SMALL | change)
    base = open_checkpoint(write_checkpoint(folder / "base", **config))
    merged = MergedCheckpoint(base.folder, base.architecture, base.digest)
    decisions, random = decide(merged.architecture, SCHEMES[scheme], keep), np.random.default_rng(seed)
    (folder / "quantized").mkdir()
    with quantized_checkpoint(merged, SCHEMES[scheme], decisions, folder / "quantized", ignore) as writer:
        for spec in (decision.spec for decision in decisions if decision.scheme is not None):
            rows, columns = spec.shape
            codes = random.integers(-8, 8, (rows, columns), np.int8)
            writer.write(spec.name, "rtn", codes, scales(random, (rows, columns // SCHEMES[scheme].group_size)))
    return QuantizedReader(folder / "quantized")


def written(reader: QuantizedReader, form: Format, folder: Path) -> tuple[Arrays, Written]:
    folder.mkdir()
    found = write_weights(reader, form, folder, ignore)
    return read(folder), found


def index(folder: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((folder / "tensor-cache.json").read_text())["records"]
    return records


def read(folder: Path) -> Arrays:
    """Every tensor; what the index says of each file is checked."""
    found: Arrays = {}
    for shard in index(folder):
        octets, end = (folder / shard["dataPath"]).read_bytes(), 0
        assert shard["format"] == "raw-shard"
        assert (shard["nbytes"], shard["md5sum"]) == (len(octets), hashlib.md5(octets).hexdigest())
        for one in shard["records"]:
            kind = np.dtype(one["dtype"]).newbyteorder("<")
            count = int(np.prod(one["shape"]))
            assert (one["format"], one["byteOffset"], one["nbytes"]) == ("raw", end, count * kind.itemsize)
            assert one["name"] not in found
            found[one["name"]] = np.frombuffer(octets, kind, count, end).reshape(one["shape"])
            end += one["nbytes"]
        assert end == len(octets)
    return found


def dequantized(arrays: Arrays, name: str) -> np.ndarray:
    """As MLC's kernels do it: element k is in bits 4 (k mod 8) of its word, less 7, times its group's scale."""
    words, scales = arrays[f"{name}.q_weight"], arrays[f"{name}.q_scale"]
    assert words.dtype == np.uint32
    k = np.arange(8 * words.shape[1])
    assert 32 * scales.shape[1] == len(k)
    codes = words[:, k // 8] >> (4 * (k % 8)).astype(np.uint32) & np.uint32(15)
    return (codes.astype(np.float32) - np.float32(7)) * scales[:, k // 32].astype(np.float32)


def matrices(reader: QuantizedReader) -> list[Weight]:
    parts = [weight for parts in weights(reader.architecture).values() for weight in parts]
    return [weight for weight in parts if len(weight.shape) == 2]


def wanted(reader: QuantizedReader, weight: Weight, form: Format) -> np.ndarray:
    """Codes times scales, these in the format's own type."""
    parts = []
    for source in weight.sources:
        rows = source.shape[0]
        codes, scales = reader.codes(source.name, 0, rows), reader.scales(source.name, 0, rows)
        if form == "q4f16_1":
            scales = np.maximum(scales.astype(np.float16), np.float16(2.0**-24)).astype(np.float32)
        parts.append(codes.astype(np.float32) * scales.repeat(reader.group_size, axis=1))
    return np.concatenate(parts)


@pytest.mark.parametrize("scheme", ["int4-g32", "int4-g64", "int4-g128"])
@SOME
@given(seed=st.integers(0, 2**32 - 1))
def test_any_codes_and_scales_are_the_same_weights_in_mlc_s_files(
    tmp_path_factory: pytest.TempPathFactory, scheme: SchemeName, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with quantized(folder, "qwen3", scheme, wide, seed=seed, num_hidden_layers=1) as reader:
        exact, _ = written(reader, "q4f32_1", folder / "float32")
        narrow, _ = written(reader, "q4f16_1", folder / "float16")
        for weight in matrices(reader):
            whole = np.concatenate([reader.dequantized(source.name) for source in weight.sources])
            np.testing.assert_array_equal(dequantized(exact, weight.name), whole)
            np.testing.assert_array_equal(dequantized(narrow, weight.name), wanted(reader, weight, "q4f16_1"))
            assert exact[f"{weight.name}.q_scale"].dtype == np.float32
            assert narrow[f"{weight.name}.q_scale"].dtype == np.float16


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_weights_are_whole(tmp_path: Path, family: Family) -> None:
    with quantized(tmp_path, family, scales=wide, tie_word_embeddings=False) as reader:
        arrays, found = written(reader, "q4f32_1", tmp_path / "out")
        assert [tensor.name for tensor in found.tensors] == list(arrays)
        assert stored_codes(tmp_path / "out") == quantized_weights(reader) == {one.name for one in matrices(reader)}
        for weight in matrices(reader):
            np.testing.assert_array_equal(dequantized(arrays, weight.name), wanted(reader, weight, "q4f32_1"))


def test_a_wide_group_s_scale_stands_for_each_32_columns(tmp_path: Path) -> None:
    with quantized(tmp_path, scheme="int4-g64", scales=wide) as reader:
        arrays, _ = written(reader, "q4f32_1", tmp_path / "out")
        scales = reader.scales("model.embed_tokens.weight", 0, 24)
        assert scales.shape == (24, 2)
    np.testing.assert_array_equal(np.abs(arrays["model.embed_tokens.q_scale"]), scales[:, [0, 0, 1, 1]])


def test_a_fused_bias_is_plain(tmp_path: Path) -> None:
    with quantized(tmp_path, "qwen2") as reader:
        arrays, _ = written(reader, "q4f32_1", tmp_path / "out")
        bias = [reader.plain(f"model.layers.0.self_attn.{part}_proj.bias") for part in "qkv"]
    np.testing.assert_array_equal(arrays["model.layers.0.self_attn.c_attn.bias"], np.concatenate(bias))


@pytest.mark.parametrize(("family", "prefix", "offset"), [("llama", "", 0), ("gemma3_text", "language_model.", 1)])
def test_what_gemma_adds_to_its_norms_is_in_them(tmp_path: Path, family: Family, prefix: str, offset: int) -> None:
    with quantized(tmp_path, family) as reader:
        arrays, _ = written(reader, "q4f32_1", tmp_path / "out")
        norm = reader.plain("model.norm.weight")
    np.testing.assert_array_equal(arrays[f"{prefix}model.norm.weight"], norm + np.float32(offset))


def test_a_kept_matrix_is_stored_as_it_is(tmp_path: Path) -> None:
    with quantized(tmp_path, keep=("*o_proj.weight", "*[qkv]_proj.weight")) as reader:
        arrays, _ = written(reader, "q4f32_1", tmp_path / "float32")
        narrow, _ = written(reader, "q4f16_1", tmp_path / "float16")
        kept = reader.plain("model.layers.0.self_attn.o_proj.weight")
        qkv = np.concatenate([reader.plain(f"model.layers.0.self_attn.{part}_proj.weight") for part in "qkv"])
    attention = "model.layers.0.self_attn."
    np.testing.assert_array_equal(arrays[f"{attention}o_proj.weight"], kept)
    np.testing.assert_array_equal(arrays[f"{attention}c_attn.weight"], qkv)
    np.testing.assert_array_equal(narrow[f"{attention}o_proj.weight"], kept.astype(np.float16))
    assert not [name for name in arrays if name.startswith(attention) and ".q_" in name.removeprefix(attention)]


def test_a_fused_matrix_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with (
        quantized(tmp_path, keep=("model.layers.0.mlp.up_proj.weight",)) as reader,
        pytest.raises(CompileError, match=r"model\.layers\.0\.mlp\.up_proj\.weight is kept") as caught,
    ):
        written(reader, "q4f32_1", tmp_path / "out")
    assert caught.value.where == "model.layers.0.mlp.gate_up_proj"
    assert "model.layers.0.mlp.gate_proj.weight" in str(caught.value.todo)


def test_scales_that_lose_bits_in_fp16_are_counted(tmp_path: Path) -> None:
    """A group is counted once, however wide it is; a small power of two loses none."""
    long = 2.0**-20 * (1 + 2.0**-7)

    def some(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        found = np.full(shape, 2.0**-20, np.float32)
        found[:2, 0] = long
        found[3, 0] = 2.0**-30
        return found

    with quantized(tmp_path, scheme="int4-g64", scales=some) as reader:
        count = sum(len(weight.sources) for weight in matrices(reader))
        _, narrow = written(reader, "q4f16_1", tmp_path / "float16")
        _, exact = written(reader, "q4f32_1", tmp_path / "float32")
    assert (narrow.rounded_scales, exact.rounded_scales) == (3 * count, 0)


def test_a_scale_too_large_for_fp16_is_told(tmp_path: Path) -> None:
    with quantized(tmp_path, scales=alike(65536)) as reader:
        told = tensors(reader.architecture, quantized_weights(reader), "q4f16_1")["embedding"]
        codes, scales = told
        assert len(list(blocks(reader, codes))) == 1
        with pytest.raises(CompileError, match="above fp16's 65504") as caught:
            list(blocks(reader, scales))
        assert "activations: float32" in str(caught.value.todo)
        arrays, _ = written(reader, "q4f32_1", tmp_path / "float32")
    assert (np.abs(arrays["model.embed_tokens.q_scale"]) == 65536).all()
    with quantized(tmp_path / "less", scales=alike(65280)) as reader:
        arrays, _ = written(reader, "q4f16_1", tmp_path / "float16")
    assert (np.abs(arrays["model.embed_tokens.q_scale"]) == 65280).all()


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.o_proj.weight"])
def test_a_plain_weight_too_large_for_fp16_is_told(tmp_path: Path, name: str) -> None:
    with quantized(tmp_path, keep=("*o_proj.weight",)) as reader:
        folder = reader.folder
    arrays = load_file(folder / "model.safetensors")
    arrays[name] = np.full_like(arrays[name], 1e5)
    save_file(arrays, folder / "model.safetensors")
    with QuantizedReader(folder) as reader:
        listed = tensors(reader.architecture, quantized_weights(reader), "q4f16_1").values()
        [tensor] = [one for parts in listed for one in parts if one.name == name]
        with pytest.raises(CompileError, match="fp16"):
            list(blocks(reader, tensor))


def test_a_failure_leaves_no_file_open(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with quantized(tmp_path, scales=alike(65536)) as reader, pytest.raises(CompileError):
            written(reader, "q4f16_1", tmp_path / "out")
        gc.collect()
    assert [str(one.message) for one in told] == []


def test_all_weights_are_counted_as_they_go(tmp_path: Path) -> None:
    counted: list[int] = []
    (tmp_path / "out").mkdir()
    with quantized(tmp_path, "qwen2", tie_word_embeddings=False) as reader:
        write_weights(reader, "q4f16_1", tmp_path / "out", counted.append)
        assert sum(counted) == reader.architecture.weights


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_SHARD_BYTES", 8192)
    with quantized(tmp_path, scales=wide) as reader:
        first, _ = written(reader, "q4f16_1", tmp_path / "first")
        second, _ = written(reader, "q4f16_1", tmp_path / "second")
    assert first.keys() == second.keys()
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")]
    assert files[0] == files[1]
    assert len(files[0]) == 1 + len(index(tmp_path / "first")) > 3


@SOME
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_only_one_tensor_may_be_larger_than_its_file(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    values = [np.arange(length, dtype=np.uint32) + i for i, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_SHARD_BYTES", 64)
        with ShardWriter(folder) as writer:
            for i, value in enumerate(values):
                spec = TensorSpec(f"{i}.weight", value.shape, "norm")
                tensor = Tensor(str(i), value.shape, "uint32", Weight(str(i), (spec,)), "plain")
                writer.write(tensor, np.array_split(value, min(3, len(value))))
            writer.finish(100)
    found = read(folder)
    assert list(found) == [str(i) for i in range(len(values))]
    for i, value in enumerate(values):
        np.testing.assert_array_equal(found[str(i)], value)
    for number, shard in enumerate(index(folder)):
        assert shard["dataPath"] == f"params_shard_{number}.bin"
        assert shard["nbytes"] <= 64 or len(shard["records"]) == 1


def test_a_shard_is_of_32_mib_by_default() -> None:
    assert shards._SHARD_BYTES == 2**25


@pytest.mark.parametrize("form", ["q4f16_1", "q4f32_1"])
def test_shapes_and_types_are_foretold(tmp_path: Path, form: Format) -> None:
    with quantized(tmp_path, "phi3", tie_word_embeddings=False, keep=("lm_head.weight",)) as reader:
        arrays, _ = written(reader, form, tmp_path / "out")
        told = tensors(reader.architecture, quantized_weights(reader), form).values()
    assert [(one.name, one.shape, one.dtype) for parts in told for one in parts] == [
        (name, array.shape, array.dtype.name) for name, array in arrays.items()
    ]
