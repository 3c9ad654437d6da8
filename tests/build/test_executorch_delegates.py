"""Delegates that don't run here: what is traced for them answers right, and what is written holds the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slmc import digest
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.executorch.compile import compile_model
from slmc.backends.executorch.profiles import PROFILES
from slmc.backends.executorch.readback import read_back
from slmc.errors import CompileError
from slmc.models.exported import MANIFEST, PROGRAM, read_exported, write_exported
from slmc.models.projections import projections
from slmc.names import SCHEMES, DelegateName
from slmc.quant.reader import QuantizedReader
from slmc.target import load_target, target_names

from .family_case import Case, quantized
from .variants import CONTEXT, VARIANTS

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

DELEGATES: tuple[DelegateName, ...] = ("vulkan", "coreml", "mlx")
FOUR_BITS = [name for name, variant in VARIANTS.items() if SCHEMES[variant.scheme].bits == 4]
TIED = "qwen3: heads wider than hidden"
READ = 68
"""Tokens: more than the shortest window."""


@pytest.mark.parametrize("case", FOUR_BITS, indirect=True, scope="module")
@pytest.mark.parametrize("delegate", DELEGATES)
def test_what_is_traced_answers_as_transformers_does(case: Case, delegate: DelegateName) -> None:
    """Its weights dequantized, its activations float32: what the delegate is given to compute."""
    from slmc.backends.executorch import delegates

    module, windows = delegates.find(delegate), [kind.window for kind in case.model.architecture.layer_kinds]
    # A delegate without windows takes such a model with a context that is no longer.
    context = CONTEXT if PROFILES[delegate].windows else min(window or CONTEXT for window in windows)
    with QuantizedReader(case.model.folder) as reader, torch.inference_mode():
        decoder = delegates.decoder(module, reader, context)
        step = 1 if PROFILES[delegate].one_token else 17
        for first in range(0, min(READ, context - step), step):
            tokens = torch.tensor([case.tokens[first : first + step]])
            found = decoder(tokens, torch.tensor([first]))[0, -1].numpy()
            np.testing.assert_allclose(found, case.logits[first + step - 1], atol=2e-4 * np.abs(case.logits).max())


@pytest.mark.parametrize("case", [name for name in FOUR_BITS if "windows" in name], indirect=True, scope="module")
@pytest.mark.parametrize("delegate", ["vulkan", "mlx"])
def test_a_window_that_a_delegate_would_ignore_is_refused(case: Case, delegate: DelegateName, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="has no sliding windows"):
        compile_model(case.model, tmp_path, lambda _: None, context=CONTEXT, end_id=2, delegate=delegate)


@pytest.fixture(scope="module", params=DELEGATES)
def delegate(request: pytest.FixtureRequest) -> DelegateName:
    name: DelegateName = request.param
    return name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> QuantizedCheckpoint:
    """Tied, with a vocabulary that every delegate takes."""
    folder, variant = tmp_path_factory.mktemp("model"), VARIANTS[TIED]
    return quantized(replace(variant, options={**variant.options, "vocab_size": 132}), folder)


@pytest.fixture(scope="module")
def artifact(model: QuantizedCheckpoint, delegate: DelegateName, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    compile_model(model, folder, lambda _: None, context=64, end_id=2, delegate=delegate)
    return folder


def test_the_delegate_takes_the_whole_program(artifact: Path) -> None:
    found = read_exported(artifact).delegation
    assert (found.graphs, found.outside, found.unexpected) == (1, {}, {})


def test_every_matrix_reads_back(model: QuantizedCheckpoint, artifact: Path) -> None:
    found = dict(read_back(model, artifact))
    assert sum(" [" in name for name in found) >= len(projections(model.architecture))
    assert all(found.values())


def test_a_changed_bit_reads_back_wrong(model: QuantizedCheckpoint, artifact: Path, tmp_path: Path) -> None:
    from slmc.backends.executorch.xnnpack.graph import pack_codes  # loads executorch, which warns

    projection = projections(model.architecture)[4]
    with QuantizedReader(model.folder) as reader:
        content = pack_codes(projection.read(reader)[0])
    program = bytearray((artifact / PROGRAM).read_bytes())
    if content not in program:  # Core ML's are in two's complement
        content = bytes(byte ^ 0x88 for byte in content)
    program[program.index(content) + len(content) // 2] ^= 1
    (tmp_path / PROGRAM).write_bytes(program)
    described = read_exported(artifact).model_copy(update={"program_sha256": digest.of_file(tmp_path / PROGRAM)})
    write_exported(tmp_path, described)
    wrong = [name for name, same in read_back(model, tmp_path) if not same]
    assert [name.split()[0] for name in wrong] == [projection.source]


def test_the_same_checkpoint_gives_the_same_bytes(
    model: QuantizedCheckpoint, artifact: Path, delegate: DelegateName, tmp_path: Path
) -> None:
    compile_model(model, tmp_path, lambda _: None, context=64, end_id=2, delegate=delegate)
    digests = [{name: digest.of_file(folder / name) for name in (PROGRAM, MANIFEST)} for folder in (tmp_path, artifact)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("case", [TIED], indirect=True, scope="module")
def test_a_vocabulary_that_vulkan_can_t_hold_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"model\.embed_tokens\.weight has 131 rows"):
        compile_model(case.model, tmp_path, lambda _: None, context=CONTEXT, end_id=2, delegate="vulkan")


def test_every_delegate_has_a_profile() -> None:
    declared = (load_target(name).delegates.get("executorch", ()) for name in target_names())
    assert set(PROFILES) == {delegate for delegates in declared for delegate in delegates}
