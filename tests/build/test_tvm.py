"""Compiled decoders against transformers with the same, dequantized weights: tiny, random, each family."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from slmc import digest
from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.backends.tvm.compile import compile_model
from slmc.backends.tvm.readback import read_back
from slmc.checkpoint.reader import open_checkpoint
from slmc.checkpoint.stored import read_header
from slmc.errors import CompileError, RunnerError
from slmc.models.compiled import CompiledDecoder, read_compiled, write_compiled
from slmc.models.decoder import rope_tables
from slmc.names import SCHEMES, Bits, SchemeName
from slmc.quant.quantizer import quantize
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.runners.tvm_engine import TvmEngine
from slmc.target import TvmVariant, host_variant, load_target

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

Logits = npt.NDArray[np.float32]
CONTEXT, VOCABULARY = 160, 100
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MODELS = {
    "llama": (transformers.LlamaConfig, {"rope_parameters": LLAMA3, "tie_word_embeddings": False}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 64, "tie_word_embeddings": True}),
}


def variant(kernels: str) -> TvmVariant:
    """The host target's own way to compile with these kernels; skips where this machine can't run them."""
    host = load_target("host")
    ways = tuple(way for way in host.tvm if way.kernels == kernels)
    try:
        return host_variant(host.model_copy(update={"tvm": ways}))
    except CompileError:
        pytest.skip(f"this machine can't run the {kernels} kernels")


@dataclass(frozen=True)
class Case:
    """A quantized model, and what transformers says of it."""

    model: QuantizedCheckpoint
    logits: Callable[[Sequence[int]], Logits]
    """Of every position."""


def make_case(
    family: str, scheme: SchemeName, folder: Path, wide: tuple[str, ...] = (), keep: tuple[str, ...] = ()
) -> Case:
    """With 8 bits in the matrices that the patterns of `wide` match."""
    torch.manual_seed(3)
    kind, more = MODELS[family]
    config = kind(**SMALL, **more)
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in network.parameters():  # norms and biases off their neutral values, logits of some size
            weight += 0.06 * torch.randn_like(weight)
    network.save_pretrained(folder / "base")
    (folder / "base" / "tokenizer.json").write_text("{}")
    base = open_checkpoint(folder / "base")
    (folder / "quantized").mkdir()
    merged = MergedCheckpoint(base.folder, base.architecture, base.digest)
    names = [spec.name for spec in base.architecture.tensors()]
    bits: dict[str, Bits] = {name: 8 for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in wide)}
    quantize(merged, SCHEMES[scheme], keep, folder / "quantized", lambda _: None, bits)
    model = open_quantized(folder / "quantized")
    with QuantizedReader(model.folder) as reader:
        state = {spec.name: torch.from_numpy(reader.dequantized(spec.name)) for spec in model.architecture.tensors()}
    network.load_state_dict(state, strict=False)

    def logits(ids: Sequence[int]) -> Logits:
        with torch.inference_mode():
            found: Logits = network(torch.tensor([list(ids)])).logits[0].numpy()
        return found

    return Case(model, logits)


CASES: dict[str, tuple[str, SchemeName, tuple[str, ...]]] = {
    "llama": ("llama", "int4-g32", ()),
    "qwen2": ("qwen2", "int4-g32", ()),
    "qwen3": ("qwen3", "int4-g32", ()),
    "wide-head": ("llama", "int4-g32", ("lm_head.*", "*.0.self_attn.*", "*.1.mlp.*")),
    "wide-embedding": ("llama", "int4-g64", ("*.embed_tokens.*", "*.1.self_attn.o_proj.*")),
    "wide-tied": ("qwen3", "int4-g128", ("*.embed_tokens.*", "*.mlp.down_proj.*")),
}
"""Family, scheme, and the matrices that have 8 bits whatever the scheme."""


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family, scheme, wide = CASES[request.param]
    return make_case(family, scheme, tmp_path_factory.mktemp(request.param), wide)


@pytest.fixture(scope="module", params=["portable", "avx2", "vnni"])
def kernels(request: pytest.FixtureRequest) -> str:
    variant(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def artifact(case: Case, kernels: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    compile_model(case.model, folder, lambda _: None, variant=variant(kernels), context=CONTEXT)
    return folder


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, VOCABULARY, count)]


def error(found: Logits, wanted: Logits) -> float:
    """Root mean square of the difference over that of what is wanted."""
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))


TOLERANCE = {"portable": 1e-4, "avx2": 0.03, "vnni": 0.03}
"""The portable kernels differ from torch in the order of sums alone; the others round activations to 8 bits."""


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 33, 127, 128, 129, CONTEXT])
def test_prefill_of_any_length(case: Case, artifact: Path, kernels: str, count: int) -> None:
    prompt = ids(count)
    found = TvmEngine(artifact).extend(prompt)
    assert found.shape == (VOCABULARY,)
    assert error(found, case.logits(prompt)[-1]) < TOLERANCE[kernels]


def test_decoding_token_by_token_to_the_end_of_the_context(case: Case, artifact: Path, kernels: str) -> None:
    engine, tokens = TvmEngine(artifact), ids(CONTEXT, seed=1)
    wanted = case.logits(tokens)
    found = np.stack([engine.extend([token]) for token in tokens])
    assert error(found, wanted) < TOLERANCE[kernels]
    assert np.mean(found.argmax(-1) == wanted.argmax(-1)) >= (1.0 if kernels == "portable" else 0.9)


def test_what_was_rewound_leaves_no_trace(artifact: Path) -> None:
    engine, tokens = TvmEngine(artifact), ids(40, seed=2)
    wanted = engine.extend(tokens)
    engine.extend(ids(9, seed=3))
    engine.rewind(13)
    np.testing.assert_array_equal(engine.extend(tokens[13:]), TvmEngine(artifact).extend(tokens[:13] + tokens[13:]))
    engine.rewind(0)
    np.testing.assert_array_equal(engine.extend(tokens), wanted)


def test_the_context_ends_with_an_error(artifact: Path) -> None:
    engine = TvmEngine(artifact)
    engine.extend(ids(CONTEXT - 1))
    engine.extend([1])
    with pytest.raises(RunnerError, match="don't fit"):
        engine.extend([1])
    with pytest.raises(RunnerError, match="outside the vocabulary"):
        TvmEngine(artifact).extend([VOCABULARY])


def test_a_prompt_read_at_once_or_in_pieces_is_the_same_to_the_bit(artifact: Path) -> None:
    tokens = ids(50, seed=4)
    at_once, in_pieces, one_by_one = (TvmEngine(artifact) for _ in range(3))
    wanted = at_once.extend(tokens)
    in_pieces.extend(tokens[:3])
    np.testing.assert_array_equal(in_pieces.extend(tokens[3:]), wanted)
    np.testing.assert_array_equal([one_by_one.extend([token]) for token in tokens][-1], wanted)


def test_an_engine_leaves_the_process_on_all_its_cores(artifact: Path) -> None:
    before = psutil.Process().cpu_affinity()
    TvmEngine(artifact, threads=1).extend([1, 2, 3])
    assert psutil.Process().cpu_affinity() == before


def test_two_threads_answer_as_one(artifact: Path) -> None:
    tokens = ids(30, seed=5)
    wanted = TvmEngine(artifact, threads=1).extend(tokens)
    np.testing.assert_array_equal(TvmEngine(artifact, threads=2).extend(tokens), wanted)
    TvmEngine(artifact, threads=1)  # the number of threads is the whole process's


def damaged(artifact: Path, folder: Path) -> CompiledDecoder:
    """A copy of an artifact in `folder`, and its model.json."""
    shutil.copytree(artifact, folder)
    return read_compiled(folder)


def test_a_cpu_without_the_instructions_is_told_beforehand(artifact: Path, tmp_path: Path) -> None:
    compiled = damaged(artifact, tmp_path / "copy")
    write_compiled(tmp_path / "copy", compiled.model_copy(update={"cpu_features": ("avx9000",)}))
    with pytest.raises(RunnerError, match="avx9000"):
        TvmEngine(tmp_path / "copy")


def test_a_damaged_artifact_is_told(artifact: Path, tmp_path: Path) -> None:
    compiled = damaged(artifact, tmp_path / "copy")
    library = tmp_path / "copy" / compiled.library
    library.write_bytes(library.read_bytes()[:1000])
    with pytest.raises(RunnerError, match="missing or damaged"):
        TvmEngine(tmp_path / "copy")
    weights = tmp_path / "copy" / "weights.safetensors"
    shutil.copy(artifact / compiled.library, library)
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(RunnerError, match="safetensors"):
        TvmEngine(tmp_path / "copy")
    (tmp_path / "copy" / "model.json").write_text('{"slmc_tvm": 1, "libary": "model.so"}')
    with pytest.raises(RunnerError, match="libary"):
        TvmEngine(tmp_path / "copy")


def test_a_model_that_answers_nonsense_is_told(artifact: Path, tmp_path: Path) -> None:
    damaged(artifact, tmp_path / "copy")
    weights = tmp_path / "copy" / "weights.safetensors"
    at = read_header(weights)["norm"].offset
    with weights.open("r+b") as file:
        file.seek(at)
        file.write(np.full(SMALL["hidden_size"], np.nan, np.float32).tobytes())
    with pytest.raises(RunnerError, match="no numbers"):
        TvmEngine(tmp_path / "copy").extend([1, 2, 3])


def test_the_weights_read_back_and_a_changed_one_is_named(case: Case, artifact: Path) -> None:
    found = dict(read_back(case.model, artifact))
    assert set(found) >= {spec.name for spec in case.model.architecture.tensors()}
    assert all(found.values())
    path = artifact / "weights.safetensors"
    original = path.read_bytes()
    blamed = {"embedding": "model.embed_tokens.weight", "layers.1.o": "model.layers.1.self_attn.o_proj.weight"}
    try:
        for parameter, name in blamed.items():
            at = read_header(path)[f"{parameter}.codes"].offset
            path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
            assert [found for found, same in read_back(case.model, artifact) if not same] == [name]
    finally:
        path.write_bytes(original)


def test_two_builds_give_the_same_bytes(case: Case, kernels: str, artifact: Path, tmp_path: Path) -> None:
    compile_model(case.model, tmp_path, lambda _: None, variant=variant(kernels), context=CONTEXT)
    assert digest.of_folder(tmp_path) == digest.of_folder(artifact)


def test_rope_tables_are_transformers_own(case: Case) -> None:
    config = transformers.AutoConfig.from_pretrained(case.model.folder.parent / "base")
    kinds = {
        "llama": transformers.models.llama.modeling_llama.LlamaRotaryEmbedding,
        "qwen2": transformers.models.qwen2.modeling_qwen2.Qwen2RotaryEmbedding,
        "qwen3": transformers.models.qwen3.modeling_qwen3.Qwen3RotaryEmbedding,
    }
    rotary = kinds[case.model.architecture.family](config)
    cosines, sines = rotary(torch.zeros(1, 1, 1), torch.arange(CONTEXT)[None])
    half = case.model.architecture.head_dim // 2
    for table, wanted in zip(rope_tables(case.model.architecture, CONTEXT), (cosines, sines), strict=True):
        np.testing.assert_allclose(table, wanted[0, :, :half].numpy(), atol=2e-5)


def test_a_kept_matrix_is_named(tmp_path: Path) -> None:
    case = make_case("qwen2", "int4-g32", tmp_path, keep=("*.1.mlp.down_proj.weight",))
    (tmp_path / "artifact").mkdir()
    with pytest.raises(CompileError, match=r"layers\.1\.mlp\.down_proj\.weight is kept"):
        compile_model(case.model, tmp_path / "artifact", lambda _: None, variant=variant("portable"), context=CONTEXT)
    assert list((tmp_path / "artifact").iterdir()) == []


def test_parts_of_one_matrix_with_different_bits_are_named(tmp_path: Path) -> None:
    case = make_case("qwen2", "int4-g32", tmp_path, wide=("*.1.mlp.up_proj.*",))
    (tmp_path / "artifact").mkdir()
    with pytest.raises(CompileError, match=r"1\.mlp\.gate_proj\.weight has 4 bits, .*1\.mlp\.up_proj\.weight has 8"):
        compile_model(case.model, tmp_path / "artifact", lambda _: None, variant=variant("portable"), context=CONTEXT)
    assert list((tmp_path / "artifact").iterdir()) == []


def test_a_shape_that_the_kernels_cannot_hold_is_named(case: Case, tmp_path: Path) -> None:
    odd = replace(case.model, architecture=replace(case.model.architecture, head_dim=24))
    with pytest.raises(CompileError, match="head_dim is 24"):
        compile_model(odd, tmp_path, lambda _: None, variant=variant("portable"), context=CONTEXT)
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_dies_is_told(case: Case, tmp_path: Path) -> None:
    wrong = variant("portable").model_copy(update={"triple": "no-such-machine"})
    with pytest.raises(CompileError, match="the compiler"):
        compile_model(case.model, tmp_path, lambda _: None, variant=wrong, context=CONTEXT)


def test_a_compiler_that_is_killed_is_told(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\necho here it ends >&2\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(CompileError, match="killed by SIGSEGV\nhere it ends"):
        compile_model(case.model, tmp_path, lambda _: None, variant=variant("portable"), context=CONTEXT)


MACHINES = {"x86_64": 62, "aarch64": 183}
"""ELF's numbers (e_machine)."""
MACH_O_64, ARM64 = b"\xcf\xfa\xed\xfe", 0x0100000C


@pytest.mark.parametrize("chosen", load_target("host").tvm, ids=lambda chosen: f"{chosen.triple}-{chosen.kernels}")
def test_every_variant_of_the_host_compiles_from_here(
    chosen: TvmVariant, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    model = make_case("qwen3", "int4-g32", tmp_path_factory.mktemp("variants")).model
    compile_model(model, tmp_path, lambda _: None, variant=chosen, context=CONTEXT)
    [library] = tmp_path.glob("model.so" if chosen.system == "linux" else "model.dylib")
    head = library.read_bytes()[:20]
    if chosen.system == "linux":
        assert head[:4] == b"\x7fELF"
        assert int.from_bytes(head[18:20], "little") == MACHINES[chosen.machine]
    else:
        assert head[:4] == MACH_O_64
        assert int.from_bytes(head[4:8], "little") == ARM64
    assert str(tmp_path).encode() not in library.read_bytes()
