"""Every family's decoder against transformers with the same, dequantized weights."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slmc.architecture import EMBEDDING, FAMILIES, HEAD
from slmc.backends.tvm.kernels.levels import levels
from slmc.backends.tvm.readback import read_back
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.errors import CheckpointError
from slmc.models.decoder import rope_tables
from slmc.runners.native_engine import NativeEngine, load_library, runnable_kernels
from slmc.runners.torch_model import load

from ..unit.families_page import read_code, read_table
from .family_case import READ, Case, Logits, ids, logits
from .variants import CONFIGS, CONTEXT, FULL, VARIANTS, VOCABULARY, WINDOW

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries


@pytest.fixture(scope="module")
def artifact(case: Case, compile_here: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    compile_here(case.model, folder, context=CONTEXT)
    return folder


@pytest.fixture(params=[level.name for level in levels(platform.machine())])
def kernels(request: pytest.FixtureRequest, host_library: Path) -> str:
    name = str(request.param)
    if name not in runnable_kernels(load_library(host_library)):
        pytest.skip(f"not run: this CPU can't run the {name} kernels")
    return name


def check(found: Logits, wanted: Logits, kernels: str) -> None:
    """The exact kernels differ from torch in the order of sums alone; the others round activations to 8 bits."""
    error = float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))
    assert error < (1e-5 if kernels.endswith("_exact") else 0.03)


def test_every_family_is_here_and_the_page_tells_of_every_variant() -> None:
    assert {variant.family for variant in VARIANTS.values()} == set(FAMILIES) == set(CONFIGS)
    tested = [
        f"{row['family'].strip('`')}: {one}" for row in read_table() for one in row["tested variants"].split("; ")
    ]
    assert tested == list(VARIANTS)
    assert all(row["tvm"] == row["executorch"] == "yes" for row in read_table())


def test_the_text_model_of_one_with_images_opens_once_it_was_parted_as_the_page_says(tmp_path: Path) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    whole = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**text, num_attention_heads=2, num_key_value_heads=1, head_dim=32),
        vision_config=transformers.SiglipVisionConfig(**vision, image_size=28, patch_size=14),
    )
    transformers.Gemma3ForConditionalGeneration(whole).save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="more than text") as caught:
        open_checkpoint(tmp_path / "whole")
    assert "as docs/families.md shows" in str(caught.value.todo)
    code = read_code()
    for theirs, ours in (('"gemma-3-4b-it"', tmp_path / "whole"), ('"gemma-3-4b-it-text"', tmp_path / "text")):
        assert theirs in code
        code = code.replace(theirs, repr(str(ours)))
    exec(code, {})
    (tmp_path / "text" / "tokenizer.json").write_text("{}")
    assert open_checkpoint(tmp_path / "text").architecture.family == "gemma3_text"
    with TensorReader(tmp_path / "whole") as before, TensorReader(tmp_path / "text") as after:
        for name in after.names:
            np.testing.assert_array_equal(after.array(name), before.array(f"language_model.{name}"))


def test_tensors_are_those_of_transformers(case: Case) -> None:
    wanted = {name: tuple(values.shape) for name, values in case.network.state_dict().items()}
    found = {spec.name: spec.shape for spec in case.model.architecture.tensors()}
    assert case.model.architecture.tied is (HEAD not in found)
    assert found | {HEAD: found[EMBEDDING]} == wanted


def test_rope_tables_are_transformers_own(case: Case) -> None:
    architecture, rotary = case.model.architecture, case.network.model.rotary_emb
    kinds = [(FULL,), (WINDOW,)] if architecture.family == "gemma3_text" else [()]
    half = architecture.rotary_dim // 2
    for kind, tables in zip(kinds, rope_tables(architecture, CONTEXT), strict=True):
        for table, wanted in zip(tables, rotary(torch.zeros(1), torch.arange(CONTEXT)[None], *kind), strict=True):
            assert wanted.shape[-1] == architecture.rotary_dim
            np.testing.assert_allclose(table, wanted[0, :, :half].numpy(), atol=2e-5)


def test_the_quantized_rung_is_the_same_model(case: Case) -> None:
    np.testing.assert_array_equal(logits(load(case.model.folder, "cpu").model, case.tokens), case.logits)


def test_the_weights_read_back(case: Case, artifact: Path) -> None:
    found = dict(read_back(case.model, artifact))
    assert set(found) >= {spec.name for spec in case.model.architecture.tensors()}
    assert all(found.values())


def test_prefill_of_any_length(case: Case, artifact: Path, kernels: str) -> None:
    counts = np.array([1, 7, 8, 33, 129, READ])
    found = [NativeEngine(artifact, kernels=kernels).extend(case.tokens[:count]) for count in counts]
    check(np.stack(found), case.logits[counts - 1], kernels)


def test_decoding_token_by_token(case: Case, artifact: Path, kernels: str) -> None:
    engine = NativeEngine(artifact, kernels=kernels)
    check(np.stack([engine.extend([token]) for token in case.tokens]), case.logits, kernels)


def test_decoding_after_a_rewind(case: Case, artifact: Path, kernels: str) -> None:
    engine = NativeEngine(artifact, kernels=kernels)
    engine.extend([*case.tokens[:45], *ids(200, seed=1)])
    engine.rewind(45)
    check(np.stack([engine.extend([token]) for token in case.tokens[45:90]]), case.logits[45:90], kernels)
