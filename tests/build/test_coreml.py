"""The coreml backend: what it packages answers in the simulator as the quantized checkpoint does, and is read back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slmc import digest
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.backends.coreml.compile import compile_model
from slmc.backends.coreml.readback import read_back
from slmc.errors import CompileError, RunnerError
from slmc.models.packaged import FULL_LOGITS, MANIFEST, PACKAGE, package_digest, read_packaged, write_packaged
from slmc.models.projections import projections
from slmc.names import DelegateName
from slmc.quant.packing import Codes
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.runners.coreml_engine import CoremlEngine
from slmc.runners.coreml_simulated import SimulatedMachine

from .family_case import READ, Case, Logits, ids, logits, quantized, quantized_again
from .in_process import programs
from .variants import CONTEXT, VARIANTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries
CHUNK = 32
CHILD_LINES = child.lines


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with programs():
        yield


of_every_family = pytest.mark.parametrize("case", VARIANTS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def artifact(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(case.model, tmp_path_factory.mktemp("packaged"))


def compiled(model: QuantizedCheckpoint, folder: Path, context: int = CONTEXT, delegate: DelegateName = "gpu") -> Path:
    described = {"slmc.recipe": "a test"}
    compile_model(model, folder, lambda _: None, context=context, chunk=CHUNK, delegate=delegate, metadata_=described)
    return folder


def check(found: Logits, wanted: Logits) -> None:
    """fp16, in units of the range of the logits."""
    span = wanted.max() - wanted.min()
    assert np.abs(found - wanted).max() < 0.01 * span


@of_every_family
def test_prefill_of_any_length(case: Case, artifact: Path) -> None:
    counts, engine, found = np.array([1, 7, 32, 33, 129, READ]), CoremlEngine(artifact, SimulatedMachine), []
    for count in counts:
        engine.rewind(0)
        found.append(engine.extend(case.tokens[:count]))
    check(np.stack(found), case.logits[counts - 1])


@of_every_family
def test_decoding_after_a_rewind(case: Case, artifact: Path) -> None:
    engine = CoremlEngine(artifact, SimulatedMachine)
    engine.extend([*case.tokens[:45], *ids(200, seed=1)])
    engine.rewind(45)
    check(np.stack([engine.extend([token]) for token in case.tokens[45:60]]), case.logits[45:60])


@of_every_family
def test_full_logits_are_those_of_each_token(case: Case, artifact: Path) -> None:
    machine = SimulatedMachine(artifact / PACKAGE)
    inputs = {"tokens": np.array([case.tokens[:CHUNK]], np.int32), "position": np.zeros(1, np.int32)}
    check(machine.run(FULL_LOGITS, inputs)[0], case.logits[:CHUNK])


@of_every_family
def test_every_tensor_reads_back(case: Case, artifact: Path) -> None:
    found = dict(read_back(case.model, artifact))
    a = case.model.architecture
    assert {spec.name for spec in a.tensors() if len(spec.shape) == 1} <= set(found)
    assert all(found.values())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized checkpoint and, in `packaged`, its package."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "packaged").mkdir()
    compiled(quantized(VARIANTS["llama: llama3 rope"], folder), folder / "packaged", context=72)
    return folder


OF_THE_NEURAL_ENGINE = ("qwen2: untied", "gemma3_text: windows and full layers", "phi3: part of a head turned")
"""Palettes take long; these have biases, windows and other activations, and fused matrices."""


@pytest.mark.parametrize("name", OF_THE_NEURAL_ENGINE)
def test_a_program_for_the_neural_engine_answers_as_its_palettes_do(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    model = quantized(replace(variant, options={**variant.options, "vocab_size": 160}), tmp_path)
    (tmp_path / "packaged").mkdir()
    artifact = compiled(model, tmp_path / "packaged", context=96, delegate="ane")
    network, tokens = painted(model, tmp_path / "base"), ids(80)
    wanted = logits(network, tokens)
    engine = CoremlEngine(artifact, SimulatedMachine)
    found = [
        engine.extend(tokens[:50]),
        *(engine.extend([token]) for token in tokens[50:54]),
        engine.extend(tokens[54:]),
    ]
    check(np.stack(found), wanted[[49, 50, 51, 52, 53, 79]])
    assert all(same for _, same in read_back(model, artifact))


def painted(model: QuantizedCheckpoint, base: Path) -> transformers.PreTrainedModel:
    """transformers' model with each matrix as its palettes have it; the embedding's rows as quantized."""
    from slmc.backends.coreml.weights import PALETTE_ROWS, palettes

    config = transformers.AutoConfig.from_pretrained(base)
    config.tie_word_embeddings = False
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with QuantizedReader(model.folder) as reader:
        state = {spec.name: reader.dequantized(spec.name) for spec in model.architecture.tensors()}
        for matrix in projections(model.architecture):
            centres, places = palettes(reader, matrix)
            blocks = places.reshape(-1, PALETTE_ROWS, places.shape[1])
            weights = np.concatenate([row[block] for row, block in zip(centres, blocks, strict=True)])
            if matrix == projections(model.architecture)[-1]:
                state["lm_head.weight"] = weights
            else:
                state[matrix.source][matrix.start : matrix.stop] = weights
    network.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()}, strict=False)
    return network


def test_what_the_neural_engine_does_not_take_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"model\.embed_tokens\.weight is 131 x 128"):
        compiled(open_quantized(small / "quantized"), tmp_path, delegate="ane")


def test_the_end_of_a_context_goes_token_by_token(small: Path) -> None:
    """72 is no multiple of the chunk: a padded one would write beyond the state."""
    tokens = ids(72)
    whole, steps = (CoremlEngine(small / "packaged", SimulatedMachine) for _ in range(2))
    found = whole.extend(tokens)
    for token in tokens:
        wanted = steps.extend([token])
    np.testing.assert_allclose(found, wanted, atol=0.01 * (wanted.max() - wanted.min()))
    with pytest.raises(RunnerError, match="1 tokens after 72"):
        whole.extend([0])


def test_a_chunk_beyond_the_context_gives_no_numbers(small: Path) -> None:
    machine = SimulatedMachine(small / "packaged" / PACKAGE)
    inputs = {"tokens": np.zeros((1, CHUNK), np.int32), "position": np.array([41], np.int32)}
    assert np.isnan(machine.run(FULL_LOGITS, inputs)).all()


def test_a_process_of_its_own_gives_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "lines", CHILD_LINES)
    compiled(open_quantized(small / "quantized"), tmp_path, context=72)
    assert digest.of_folder(tmp_path) == digest.of_folder(small / "packaged")


def test_a_tied_embedding_is_stored_once(small: Path) -> None:
    model = open_quantized(small / "quantized")
    with QuantizedReader(model.folder) as reader:
        content = packed(reader.codes("model.embed_tokens.weight", 0, 8))
    [weights] = (small / "packaged").rglob("weight.bin")
    assert weights.read_bytes().count(content) == 1


def packed(codes: Codes) -> bytes:
    """As Core ML has them: two codes a byte in two's complement, the first in its low half."""
    halves = codes.astype(np.uint8) & 15
    return (halves[:, ::2] | halves[:, 1::2] << 4).tobytes()


def test_swapped_nibbles_read_back_wrong_by_name(small: Path, tmp_path: Path) -> None:
    model = open_quantized(small / "quantized")
    projection = projections(model.architecture)[3]
    with QuantizedReader(model.folder) as reader:
        content = packed(projection.read(reader)[0])
    swapped = bytes(byte >> 4 | (byte & 15) << 4 for byte in content)
    wrong = [name for name, same in read_back(model, damaged(small, tmp_path, content, swapped)) if not same]
    assert [name.split()[0] for name in wrong] == [projection.source]


def damaged(small: Path, folder: Path, content: bytes, other: bytes) -> Path:
    """The package with bytes of its weights replaced, under a manifest that knows them."""
    shutil.copytree(small / "packaged", folder / "other")
    [weights] = (folder / "other").rglob("weight.bin")
    found = weights.read_bytes()
    assert found.count(content) == 1
    weights.write_bytes(found.replace(content, other))
    described = read_packaged(folder / "other")
    changed = described.model_copy(update={"package_sha256": package_digest(folder / "other" / PACKAGE)})
    write_packaged(folder / "other", changed)
    return folder / "other"


def test_a_damaged_package_is_not_opened(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "packaged", tmp_path / "model")
    [weights] = (tmp_path / "model").rglob("weight.bin")
    with weights.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"x")
    with pytest.raises(RunnerError, match="missing or damaged"):
        CoremlEngine(tmp_path / "model", SimulatedMachine)


@pytest.mark.parametrize("tokens", [[], [-1], [131], [0] * 73])
def test_what_an_engine_can_t_read_is_refused(small: Path, tokens: list[int]) -> None:
    with pytest.raises(RunnerError):
        CoremlEngine(small / "packaged", SimulatedMachine).extend(tokens)


def with_scale(small: Path, folder: Path, scale: float) -> QuantizedCheckpoint:
    """The checkpoint with another scale of one group."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(small / "quantized", folder / "model")
    [weights] = (folder / "model").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.up_proj.weight_scale"][3, 1] = scale
    save_file(tensors, weights, {"format": "pt"})
    (folder / "out").mkdir()
    return open_quantized(folder / "model")


@pytest.mark.parametrize("scale", [2.0**-30, 1.5 * 2.0**-24])
def test_a_scale_too_small_for_fp16_is_rounded_and_counted(small: Path, tmp_path: Path, scale: float) -> None:
    model = with_scale(small, tmp_path, scale)
    artifact = compiled(model, tmp_path / "out", context=64)
    assert read_packaged(artifact).rounded_scales == 1
    assert all(same for _, same in read_back(model, artifact))
    assert read_packaged(small / "packaged").rounded_scales == 0


def test_a_scale_too_large_for_fp16_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.* has scales above fp16's 65504"):
        compiled(with_scale(small, tmp_path, 2.0**17), tmp_path / "out")


def test_a_kept_matrix_is_fp16(small: Path, tmp_path: Path) -> None:
    kept = "model.layers.0.mlp.down_proj.weight"
    model = quantized_again(small / "base", tmp_path / "quantized", keep=(kept,))
    (tmp_path / "packaged").mkdir()
    found = dict(read_back(model, compiled(model, tmp_path / "packaged", context=64)))
    assert all(found.values())
    assert any(name.startswith(kept) for name in found)


def test_an_embedding_of_8_bits_beside_4(small: Path, tmp_path: Path) -> None:
    model = quantized_again(small / "base", tmp_path / "quantized", bits={"model.embed_tokens.weight": 8})
    (tmp_path / "packaged").mkdir()
    artifact = compiled(model, tmp_path / "packaged", context=64)
    assert all(same for _, same in read_back(model, artifact))
    sizes = [path.stat().st_size for folder in (artifact, small / "packaged") for path in folder.rglob("weight.bin")]
    assert sizes[0] - sizes[1] > 131 * 128 // 2 - 4096  # half a byte more a weight, a shorter rope less
    engine = CoremlEngine(artifact, SimulatedMachine)
    assert np.isfinite(engine.extend(ids(40))).all()


def test_a_manifest_of_another_version_is_refused(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "packaged", tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_text("{}")
    with pytest.raises(RunnerError):
        CoremlEngine(tmp_path / "model", SimulatedMachine)
