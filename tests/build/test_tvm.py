"""Compiled decoders against transformers with the same, dequantized weights: tiny, random, each family."""

from __future__ import annotations

import fnmatch
import platform
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
from slmc.backends.tvm.kernels.levels import levels
from slmc.backends.tvm.library import build_library
from slmc.backends.tvm.readback import read_back
from slmc.checkpoint.reader import open_checkpoint
from slmc.errors import CompileError, RunnerError
from slmc.models.compiled import WEIGHTS, CompiledDecoder, read_compiled, write_compiled
from slmc.models.decoder import rope_tables
from slmc.names import SCHEMES, Bits, SchemeName
from slmc.quant.quantizer import quantize
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.runners.logprobs import log_softmax
from slmc.runners.native_engine import NativeEngine, load_library, runnable_kernels

from .weight_file import place_of, reseal

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

Logits = npt.NDArray[np.float32]
Compile = Callable[..., None]
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


@pytest.fixture(scope="module")
def artifact(case: Case, compile_here: Compile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    compile_here(case.model, folder, context=CONTEXT)
    return folder


@pytest.fixture(params=[level.name for level in levels(platform.machine())])
def kernels(request: pytest.FixtureRequest, host_library: Path) -> str:
    name = str(request.param)
    if name not in runnable_kernels(load_library(host_library)):
        pytest.skip(f"not run: this CPU can't run the {name} kernels")
    return name


@pytest.fixture
def engine(artifact: Path, kernels: str) -> NativeEngine:
    return NativeEngine(artifact, kernels=kernels)


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, VOCABULARY, count)]


def error(found: Logits, wanted: Logits) -> float:
    """Root mean square of the difference over that of what is wanted."""
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))


def tolerance(kernels: str) -> float:
    """The exact kernels differ from torch in the order of sums alone; the others round activations to 8 bits."""
    return 1e-4 if kernels.endswith("_exact") else 0.03


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 33, 127, 128, 129, CONTEXT])
def test_prefill_of_any_length(case: Case, engine: NativeEngine, kernels: str, count: int) -> None:
    prompt = ids(count)
    found = engine.extend(prompt)
    assert found.shape == (VOCABULARY,)
    assert error(found, case.logits(prompt)[-1]) < tolerance(kernels)


def test_decoding_token_by_token_to_the_end_of_the_context(case: Case, engine: NativeEngine, kernels: str) -> None:
    tokens = ids(CONTEXT, seed=1)
    wanted = case.logits(tokens)
    found = np.stack([engine.extend([token]) for token in tokens])
    assert error(found, wanted) < tolerance(kernels)
    assert np.mean(found.argmax(-1) == wanted.argmax(-1)) >= (1.0 if kernels.endswith("_exact") else 0.9)


def test_what_was_rewound_leaves_no_trace(engine: NativeEngine, artifact: Path, kernels: str) -> None:
    tokens = ids(40, seed=2)
    wanted = engine.extend(tokens)
    engine.extend(ids(9, seed=3))
    engine.rewind(13)
    fresh = NativeEngine(artifact, kernels=kernels)
    np.testing.assert_array_equal(engine.extend(tokens[13:]), fresh.extend(tokens))
    engine.rewind(0)
    np.testing.assert_array_equal(engine.extend(tokens), wanted)


def test_the_context_ends_with_an_error(engine: NativeEngine, artifact: Path) -> None:
    engine.extend(ids(CONTEXT - 1))
    engine.extend([1])
    with pytest.raises(RunnerError, match="don't fit"):
        engine.extend([1])
    for wrong in ([VOCABULARY], [-1], [1, 2, VOCABULARY]):
        with pytest.raises(RunnerError, match="outside the vocabulary"):
            NativeEngine(artifact).extend(wrong)
    with pytest.raises(RunnerError, match="no tokens"):
        NativeEngine(artifact).extend([])


def test_a_prompt_read_at_once_or_in_pieces_is_the_same_to_the_bit(artifact: Path, kernels: str) -> None:
    tokens = ids(50, seed=4)
    at_once, in_pieces, one_by_one = (NativeEngine(artifact, kernels=kernels) for _ in range(3))
    wanted = at_once.extend(tokens)
    in_pieces.extend(tokens[:3])
    np.testing.assert_array_equal(in_pieces.extend(tokens[3:]), wanted)
    np.testing.assert_array_equal([one_by_one.extend([token]) for token in tokens][-1], wanted)


def test_an_engine_leaves_the_process_on_all_its_cores(artifact: Path) -> None:
    before = psutil.Process().cpu_affinity()
    NativeEngine(artifact, threads=1).extend([1, 2, 3])
    assert psutil.Process().cpu_affinity() == before


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_answer_as_one(engine: NativeEngine, artifact: Path, kernels: str, threads: int) -> None:
    tokens = ids(30, seed=5)
    many = NativeEngine(artifact, threads, kernels)
    np.testing.assert_array_equal(many.extend(tokens), engine.extend(tokens))
    np.testing.assert_array_equal(many.extend([7]), engine.extend([7]))


def test_the_likeliest_tokens_and_continuations(engine: NativeEngine) -> None:
    """Against log-probabilities in numpy, of logits that the engine gives."""
    prompt = ids(20, seed=6)
    logprobs = log_softmax(engine.extend(prompt))
    top = engine.top(5)
    order = np.argsort(-logprobs, kind="stable")[:5]
    assert [token for token, _ in top] == list(order)
    np.testing.assert_allclose([found for _, found in top], logprobs[order], atol=1e-5)
    asked = [[3], [3, 4], [5, 6, 7], [99]]
    found = engine.continuations(asked)
    assert engine.position == len(prompt)
    assert engine.top(5) == top
    for one, total in zip(asked, found, strict=True):
        wanted = 0.0
        for index, token in enumerate(one):
            wanted += float((logprobs if index == 0 else log_softmax(engine.extend([one[index - 1]])))[token])
        assert total == pytest.approx(wanted, abs=1e-4)
        engine.rewind(len(prompt))
    with pytest.raises(RunnerError, match="need logits"):
        engine.continuations([[1]])  # nothing was read after the rewind


def test_what_was_cancelled_leaves_the_session_as_it_was(engine: NativeEngine) -> None:
    tokens = ids(20, seed=7)
    engine.extend(tokens)
    engine.cancel()
    with pytest.raises(RunnerError, match="cancelled"):
        engine.extend([1, 2])
    assert engine.position == 20
    after = engine.extend([1])
    engine.rewind(0)
    np.testing.assert_array_equal(engine.extend([*tokens, 1]), after)


def test_memory_and_time_are_told(artifact: Path) -> None:
    engine = NativeEngine(artifact)
    engine.extend(ids(10))
    engine.extend([1])
    stats = engine.stats()
    assert (stats.prefill_tokens, stats.decode_tokens) == (10, 1)
    assert stats.prefill_nanoseconds > 0
    assert stats.decode_nanoseconds > 0
    assert stats.memory_bytes > 2 * 2 * 2 * CONTEXT * 32 * 2  # the cache: keys and values, layers, heads


def test_exact_activations_are_the_weight_files_own_wish(case: Case, compile_here: Compile, tmp_path: Path) -> None:
    compile_here(case.model, tmp_path, context=CONTEXT, activations="float32")
    engine, prompt = NativeEngine(tmp_path), ids(33)
    assert engine.kernels.endswith("_exact")
    assert error(engine.extend(prompt), case.logits(prompt)[-1]) < 1e-4


def damaged(artifact: Path, folder: Path) -> CompiledDecoder:
    """A copy of an artifact in `folder`, and its model.json."""
    shutil.copytree(artifact, folder)
    return read_compiled(folder)


def test_kernels_that_are_not_there_are_told(artifact: Path) -> None:
    with pytest.raises(RunnerError, match="avx9000"):
        NativeEngine(artifact, kernels="avx9000")


def test_an_artifact_for_another_machine_is_told(artifact: Path, tmp_path: Path) -> None:
    compiled = damaged(artifact, tmp_path / "copy")
    [library] = compiled.libraries
    phone = library.model_copy(update={"triple": "aarch64-linux-android29"})
    write_compiled(tmp_path / "copy", compiled.model_copy(update={"libraries": (phone,)}))
    with pytest.raises(RunnerError, match="compiled for aarch64-linux-android29"):
        NativeEngine(tmp_path / "copy")


def test_a_damaged_artifact_is_told(artifact: Path, tmp_path: Path) -> None:
    compiled = damaged(artifact, tmp_path / "copy")
    library = tmp_path / "copy" / compiled.libraries[0].path
    library.write_bytes(library.read_bytes()[:1000])
    with pytest.raises(RunnerError, match="missing or damaged"):
        NativeEngine(tmp_path / "copy")
    weights = tmp_path / "copy" / WEIGHTS
    shutil.copy(artifact / compiled.libraries[0].path, library)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-64])
    with pytest.raises(RunnerError, match="cut off or changed"):
        NativeEngine(tmp_path / "copy")
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunnerError, match="SHA-256"):
        NativeEngine(tmp_path / "copy")
    (tmp_path / "copy" / "model.json").write_text('{"slmc_tvm": 2, "libary": "model.so"}')
    with pytest.raises(RunnerError, match="libary"):
        NativeEngine(tmp_path / "copy")


def test_a_model_that_answers_nonsense_is_told(artifact: Path, tmp_path: Path) -> None:
    damaged(artifact, tmp_path / "copy")
    with (tmp_path / "copy" / WEIGHTS).open("r+b") as file:
        file.seek(place_of(tmp_path / "copy", "norm").offset)
        file.write(np.full(SMALL["hidden_size"], np.nan, np.float32).tobytes())
    reseal(tmp_path / "copy")
    engine = NativeEngine(tmp_path / "copy")
    with pytest.raises(RunnerError, match="no numbers"):
        engine.extend([1, 2, 3])
    assert engine.position == 0


def test_the_weights_read_back_and_a_changed_one_is_named(case: Case, artifact: Path) -> None:
    found = dict(read_back(case.model, artifact))
    assert set(found) >= {spec.name for spec in case.model.architecture.tensors()}
    assert all(found.values())
    path = artifact / WEIGHTS
    original = path.read_bytes()
    blamed = {
        "embedding": "model.embed_tokens.weight",
        "layers.1.o": "model.layers.1.self_attn.o_proj.weight",
        "norm": "model.norm.weight",
        "ropes.0.sines": "ropes.0.sines",
    }
    try:
        for parameter, name in blamed.items():
            at = place_of(artifact, parameter).offset
            path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
            assert [found for found, same in read_back(case.model, artifact) if not same] == [name]
    finally:
        path.write_bytes(original)


def test_two_builds_give_the_same_bytes(case: Case, artifact: Path, compile_here: Compile, tmp_path: Path) -> None:
    compile_here(case.model, tmp_path, context=CONTEXT)
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
    [tables] = rope_tables(case.model.architecture, CONTEXT)
    for table, wanted in zip(tables, (cosines, sines), strict=True):
        np.testing.assert_allclose(table, wanted[0, :, :half].numpy(), atol=2e-5)


def test_a_kept_matrix_is_named(compile_here: Compile, tmp_path: Path) -> None:
    case = make_case("qwen2", "int4-g32", tmp_path, keep=("*.1.mlp.down_proj.weight",))
    (tmp_path / "artifact").mkdir()
    with pytest.raises(CompileError, match=r"layers\.1\.mlp\.down_proj\.weight is kept"):
        compile_here(case.model, tmp_path / "artifact", context=CONTEXT)
    assert not (tmp_path / "artifact" / WEIGHTS).exists()


def test_parts_of_one_matrix_with_different_bits_are_named(compile_here: Compile, tmp_path: Path) -> None:
    case = make_case("qwen2", "int4-g32", tmp_path, wide=("*.1.mlp.up_proj.*",))
    (tmp_path / "artifact").mkdir()
    with pytest.raises(CompileError, match=r"1\.mlp\.gate_proj\.weight has 4 bits, .*1\.mlp\.up_proj\.weight has 8"):
        compile_here(case.model, tmp_path / "artifact", context=CONTEXT)
    assert not (tmp_path / "artifact" / WEIGHTS).exists()


def test_a_shape_that_the_kernels_cannot_hold_is_named(case: Case, compile_here: Compile, tmp_path: Path) -> None:
    odd = replace(case.model, architecture=replace(case.model.architecture, head_dim=24))
    with pytest.raises(CompileError, match="head_dim is 24"):
        compile_here(odd, tmp_path, context=CONTEXT)
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_nothing_is_built_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no way to build for this system"):
        build_library("riscv64-unknown-freebsd", tmp_path / "library")


def test_a_compiler_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\necho here it ends >&2\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(CompileError, match="killed by SIGSEGV\nhere it ends"):
        build_library("x86_64-linux-gnu", tmp_path / "library")
    assert not (tmp_path / "library").exists()
