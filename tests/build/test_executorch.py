"""The executorch backend: what it exports answers as the quantized checkpoint does, and is read back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from slmc import digest
from slmc.architecture import EMBEDDING
from slmc.backends.executorch.compile import compile_model
from slmc.backends.executorch.readback import read_back
from slmc.errors import CompileError, RunnerError
from slmc.models.exported import MANIFEST, PROGRAM, read_exported, write_exported
from slmc.models.projections import projections
from slmc.names import SCHEMES
from slmc.quant.packing import Codes
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.runners.executorch_engine import ExecutorchEngine

from .family_case import READ, Case, Logits, ids, quantized, quantized_again
from .in_process import programs
from .variants import CONTEXT, VARIANTS

pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with programs():
        yield


END = 2
FOUR_BITS = [name for name, variant in VARIANTS.items() if SCHEMES[variant.scheme].bits == 4]
of_every_family = pytest.mark.parametrize("case", FOUR_BITS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def artifact(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    compile_model(case.model, folder, lambda _: None, context=CONTEXT, end_id=END)
    return folder


def packed(codes: Codes) -> bytes:
    from slmc.backends.executorch.xnnpack.graph import pack_codes  # loads executorch, which warns

    return pack_codes(codes)


def check(found: Logits, wanted: Logits) -> None:
    """Activations are rounded to 8 bits, as by the native library's kernels: the same bound."""
    error = float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))
    assert error < 0.03


@of_every_family
def test_prefill_of_any_length(case: Case, artifact: Path) -> None:
    counts, engine, found = np.array([1, 7, 33, 129, READ]), ExecutorchEngine(artifact), []
    for count in counts:
        engine.rewind(0)
        found.append(engine.extend(case.tokens[:count]))
    check(np.stack(found), case.logits[counts - 1])


@of_every_family
def test_decoding_after_a_rewind(case: Case, artifact: Path) -> None:
    engine = ExecutorchEngine(artifact)
    engine.extend([*case.tokens[:45], *ids(200, seed=1)])
    engine.rewind(45)
    check(np.stack([engine.extend([token]) for token in case.tokens[45:90]]), case.logits[45:90])


@of_every_family
def test_full_logits_are_those_of_each_token(case: Case, artifact: Path) -> None:
    found = ExecutorchEngine(artifact)._run("full_logits", case.tokens[:60])
    check(found, case.logits[:60])


@of_every_family
def test_every_tensor_reads_back(case: Case, artifact: Path) -> None:
    found = dict(read_back(case.model, artifact))
    a = case.model.architecture
    assert set(found) >= {spec.name for spec in a.tensors() if len(spec.shape) == 1}
    assert sum(" [" in name for name in found) == len(projections(a))
    assert all(found.values())


@pytest.mark.parametrize("case", [name for name in FOUR_BITS if VARIANTS[name].tied], indirect=True, scope="module")
def test_a_tied_embedding_is_stored_once(case: Case, artifact: Path) -> None:
    with QuantizedReader(case.model.folder) as reader:
        start = reader.codes(EMBEDDING, 0, 1)
    assert (artifact / PROGRAM).read_bytes().count(packed(start)) == 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized checkpoint and, in `exported`, its program."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "exported").mkdir()
    compile_model(
        quantized(VARIANTS["llama: untied"], folder), folder / "exported", lambda _: None, context=64, end_id=END
    )
    return folder


def test_the_same_checkpoint_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    compile_model(open_quantized(small / "quantized"), tmp_path, lambda _: None, context=64, end_id=END)
    assert digest.of_file(tmp_path / PROGRAM) == digest.of_file(small / "exported" / PROGRAM)


def test_a_changed_norm_reads_back_wrong(small: Path, tmp_path: Path) -> None:
    model, name = open_quantized(small / "quantized"), "model.layers.1.post_attention_layernorm.weight"
    shutil.copytree(model.folder, tmp_path / "other")
    other = open_quantized(tmp_path / "other")
    [weights] = other.folder.glob("*.safetensors")
    tensors = load_file(weights)
    tensors[name][3] += 1
    save_file(tensors, weights, {"format": "pt"})
    found = read_back(other, small / "exported")
    assert [one for one, same in found if not same] == [name]


def test_a_changed_bit_of_a_weight_reads_back_wrong(small: Path, tmp_path: Path) -> None:
    model = open_quantized(small / "quantized")
    projection = projections(model.architecture)[3]
    with QuantizedReader(model.folder) as reader:
        content = packed(projection.read(reader)[0])
    program = bytearray((small / "exported" / PROGRAM).read_bytes())
    program[program.index(content) + len(content) // 2] ^= 1
    shutil.copyfile(small / "exported" / MANIFEST, tmp_path / MANIFEST)
    (tmp_path / PROGRAM).write_bytes(program)
    wrong = [name for name, same in read_back(model, tmp_path) if not same]
    assert [name.split()[0] for name in wrong] == [projection.source]


def test_a_damaged_program_is_not_loaded(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "exported", tmp_path / "model")
    with (tmp_path / "model" / PROGRAM).open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"x")
    with pytest.raises(RunnerError, match="missing or damaged"):
        ExecutorchEngine(tmp_path / "model")


def test_a_program_that_executorch_refuses_is_a_named_failure(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "exported", tmp_path / "model")
    (tmp_path / "model" / PROGRAM).write_bytes(b"no program")
    described = read_exported(tmp_path / "model")
    changed = described.model_copy(update={"program_sha256": digest.of_file(tmp_path / "model" / PROGRAM)})
    write_exported(tmp_path / "model", changed)
    with pytest.raises(RunnerError, match="ExecuTorch can't load"):
        ExecutorchEngine(tmp_path / "model")


@pytest.mark.parametrize("tokens", [[], [-1], [131], [0] * 65])
def test_what_an_engine_can_t_read_is_refused(small: Path, tokens: list[int]) -> None:
    with pytest.raises(RunnerError):
        ExecutorchEngine(small / "exported").extend(tokens)


def test_a_model_in_8_bits_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    model = quantized_again(small / "base", tmp_path / "quantized", "int8-g32")
    with pytest.raises(CompileError, match=r"model\.embed_tokens\.weight is not in 4 bits"):
        compile_model(model, tmp_path, lambda _: None, context=64, end_id=END)
