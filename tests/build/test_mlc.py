"""The mlc backend: what it writes answers on this machine's CPU as the quantized checkpoint does, and is read back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slmc import digest
from slmc.architecture import FAMILIES, HEAD
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends import child
from slmc.backends.mlc.described import check_library, read_description
from slmc.backends.mlc.library.settings import Settings
from slmc.backends.mlc.readback import read_back
from slmc.backends.mlc.tensors import quantized_weights, tensors
from slmc.errors import CompileError, RunnerError
from slmc.models.mlc import WEIGHTS, read_mlc, weights_digest, write_mlc
from slmc.names import Activations
from slmc.quant.reader import QuantizedReader

from ..unit.families_page import read_table
from .family_case import READ, Case, Logits, ids, logits, quantized, quantized_again
from .in_process import programs
from .mlc_model import CHUNK, compiled, engine, order
from .variants import CONTEXT, VARIANTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("tvm")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries
CHILD_LINES = child.lines


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with programs():
        yield


WINDOWED = [name for name, one in VARIANTS.items() if one.options.get("sliding_window", CONTEXT) < CONTEXT]
SERVED = [name for name in VARIANTS if name not in ("qwen3: untied, 8 bits", *WINDOWED)]
"""Codes of 4 bits, and no windows within the context."""
HALVED = [next(name for name in SERVED if VARIANTS[name].family == family) for family in FAMILIES]
of_every_family = pytest.mark.parametrize("case", SERVED, indirect=True, scope="module")


@pytest.fixture(scope="module")
def artifact(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlc")
    compiled(case.model, folder, order())
    return folder


def check(found: Logits, wanted: Logits, share: float = 1e-5) -> None:
    """In units of the range of the logits; fp16 has a thousandth."""
    span = wanted.max() - wanted.min()
    assert np.abs(found - wanted).max() < share * span


def test_the_page_says_which_families_there_are() -> None:
    assert all(row["mlc"] == "yes" for row in read_table())


@of_every_family
def test_prefill_of_any_length(case: Case, artifact: Path) -> None:
    counts, model, found = np.array([1, 7, CHUNK, CHUNK + 1, 129, READ]), engine(artifact), []
    for count in counts:
        model.rewind(0)
        found.append(model.extend(case.tokens[:count]))
    check(np.stack(found), case.logits[counts - 1])


@of_every_family
def test_decoding_after_a_rewind(case: Case, artifact: Path) -> None:
    model = engine(artifact)
    model.extend([*case.tokens[:45], *ids(200, seed=1)])
    model.rewind(45)
    check(np.stack([model.extend([token]) for token in case.tokens[45:60]]), case.logits[45:60])


@pytest.mark.parametrize("case", HALVED, indirect=True, scope="module")
def test_half_precision(case: Case, tmp_path: Path) -> None:
    compiled(case.model, tmp_path, order(activations="float16"))
    model = engine(tmp_path)
    found = [model.extend(case.tokens[:40]), *(model.extend([token]) for token in case.tokens[40:50])]
    check(np.stack(found), case.logits[39:50], 2e-3)


@of_every_family
def test_every_tensor_is_read_back(case: Case, artifact: Path) -> None:
    found = dict(read_back(case.model, artifact))
    assert all(found.values())
    with QuantizedReader(case.model.folder) as reader:
        assert len(found) >= len({spec.layer for spec in reader.architecture.tensors()})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> QuantizedCheckpoint:
    return quantized(VARIANTS["llama: llama3 rope"], tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(model: QuantizedCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("artifact")
    compiled(model, found, order())
    return found


@pytest.mark.parametrize("activations", ["float16", "float32"])
def test_a_changed_bit_is_named(model: QuantizedCheckpoint, tmp_path: Path, activations: Activations) -> None:
    made = compiled(model, tmp_path, order(activations=activations))
    weights = tmp_path / made.model_id
    index = json.loads((weights / WEIGHTS).read_text())
    for record in index["records"][0]["records"]:
        shard = weights / index["records"][0]["dataPath"]
        before = shard.read_bytes()
        place = record["byteOffset"] + record["nbytes"] // 2
        shard.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        wrong = [name for name, same in read_back(model, tmp_path) if not same]
        shard.write_bytes(before)
        assert wrong == [record["name"]]


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_within_the_context_are_refused(name: str, tmp_path: Path) -> None:
    windowed = quantized(VARIANTS[name], tmp_path)
    with pytest.raises(CompileError, match=r"attend to the last \d+ tokens, and the context has 320") as caught:
        compiled(windowed, tmp_path / "mlc", order())
    assert caught.value.todo is not None
    window = int(caught.value.todo.split()[2])
    compiled(windowed, tmp_path / "shorter", order(context=window))


def test_a_matrix_that_is_kept(tmp_path: Path) -> None:
    quantized(VARIANTS["llama: untied"], tmp_path)
    kept = quantized_again(tmp_path / "base", tmp_path / "kept", keep=(HEAD, "model.layers.1.mlp.*", "*.o_proj.weight"))
    compiled(kept, tmp_path / "mlc", order())
    assert all(same for _, same in read_back(kept, tmp_path / "mlc"))
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    with QuantizedReader(kept.folder) as reader:
        state = {spec.name: torch.from_numpy(reader.dequantized(spec.name)) for spec in kept.architecture.tensors()}
    network.load_state_dict(state, strict=False)
    tokens = ids(20)
    check(engine(tmp_path / "mlc").extend(tokens), logits(network, tokens)[-1])


def test_the_same_bytes_twice(model: QuantizedCheckpoint, folder: Path, tmp_path: Path) -> None:
    compiled(model, tmp_path, order())
    assert digest.of_folder(tmp_path) == digest.of_folder(folder)


def test_a_library_of_other_weights_is_found_out(model: QuantizedCheckpoint, folder: Path, tmp_path: Path) -> None:
    made = read_mlc(folder)
    with QuantizedReader(model.folder) as reader:
        form, quantized_names = made.quantization, quantized_weights(reader)
        same = [one for parts in tensors(model.architecture, quantized_names, form).values() for one in parts]
        other = [one for parts in tensors(model.architecture, quantized_names, "q4f16_1").values() for one in parts]
    library, size = folder / made.library, model.architecture.vocab_size
    check_library(library, same, size, CHUNK)
    with pytest.raises(CompileError, match=r"the library has .* as float32"):
        check_library(library, other, size, CHUNK)
    with pytest.raises(CompileError, match="reads 32 tokens at once"):
        check_library(library, same, size, CHUNK + 1)


def test_memory_is_told(folder: Path) -> None:
    """Of functions whose sizes are bounded: a prefill takes more than a step."""
    memory = read_description(folder / read_mlc(folder).library).memory_usage
    assert memory["prefill"] > memory["decode"] > 0


def test_damage_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / read_mlc(copy).model_id
    shard = weights / "params_shard_0.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(RunnerError, match="missing or damaged"):
        engine(copy)


def test_weights_that_the_library_does_not_know(folder: Path, tmp_path: Path) -> None:
    """Digests agree, the list has another name: the engine says which weight it misses."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    made = read_mlc(copy)
    index = copy / made.model_id / WEIGHTS
    index.write_text(index.read_text().replace("model.norm.weight", "model.other.weight"))
    write_mlc(copy, made.model_copy(update={"weights_sha256": weights_digest(copy / made.model_id)}))
    with pytest.raises(Exception, match=r"model\.norm\.weight"):
        engine(copy)


def test_beyond_the_context(folder: Path) -> None:
    model = engine(folder)
    model.extend(ids(CONTEXT))
    with pytest.raises(RunnerError, match="1 tokens after 320"):
        model.extend([1])


def test_a_compiler_that_fails_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own."""
    monkeypatch.setattr(child, "lines", CHILD_LINES)
    (tmp_path / "config.json").write_text("{}")
    settings = Settings(target="ios", form="q4f16_1", context=64, chunk=32, model_id="model", name="slmc_test")
    with pytest.raises(CompileError, match=r"mlc\.library\.export failed with exit code 1\n(.*\n)*.*config\.json"):
        child.run("mlc.library.export", [str(tmp_path), str(tmp_path / "x.tar"), settings.model_dump_json()])
    assert not (tmp_path / "x.tar").exists()
