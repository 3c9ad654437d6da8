"""Adapters beside one quantized base: each answers as peft's does, and what they share is one file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from slmc import digest
from slmc.architecture import EMBEDDING
from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.executorch.compile import compile_model
from slmc.backends.executorch.readback import read_back
from slmc.checkpoint.unmerged import FOLDER, read_pairs
from slmc.errors import AdapterError, RunnerError
from slmc.models.exported import FOUNDATION, PROGRAM
from slmc.models.projections import projections
from slmc.quant.reader import QuantizedReader, open_quantized
from slmc.runners.executorch_engine import ExecutorchEngine
from slmc.runners.torch_model import load

from .family_case import Case
from .variants import CONTEXT

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

LLAMA, PHI, QWEN = "llama: untied", "phi3: part of a head turned", "qwen3: heads wider than hidden"
LINEARS = {"phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]}
"""Of other families: every linear by its own name."""
USUAL = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
READ = 60


def beside(case: Case, folder: Path, seed: int, **options: object) -> QuantizedCheckpoint:
    """The case's quantized model with a random adapter beside it."""
    shutil.copytree(case.model.folder, folder)
    torch.manual_seed(seed)
    wanted = {"r": 4, "lora_alpha": 6, "target_modules": LINEARS.get(case.model.architecture.family, USUAL)} | options
    base = case.model.folder.with_name("base")
    model = peft.get_peft_model(torch_model(base), peft.LoraConfig(task_type="CAUSAL_LM", **wanted))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder / FOLDER)
    return open_quantized(folder)


def torch_model(folder: Path) -> torch.nn.Module:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def export(model: QuantizedCheckpoint, folder: Path) -> Path:
    folder.mkdir()
    compile_model(model, folder, lambda _: None, context=CONTEXT, end_id=2)
    return folder


@pytest.mark.parametrize("case", [LLAMA, PHI, QWEN], indirect=True, scope="module")
def test_an_unmerged_adapter_answers_as_peft_s(case: Case, tmp_path: Path) -> None:
    model = beside(case, tmp_path / "model", 1)
    artifact = export(model, tmp_path / "artifact")
    engine, found = ExecutorchEngine(artifact), []
    for count in (1, 7, READ):
        engine.rewind(0)
        found.append(engine.extend(case.tokens[:count]))
    with torch.inference_mode():
        logits = load(model.folder, "cpu").model(torch.tensor([case.tokens[:READ]])).logits[0].numpy()
    wanted = logits[[0, 6, READ - 1]]
    error = float(np.sqrt(np.square(np.stack(found) - wanted).mean() / np.square(wanted).mean()))
    assert error < 0.03  # as without an adapter: activations in 8 bits
    changed = float(np.sqrt(np.square(case.logits[:READ] - logits).mean() / np.square(logits).mean()))
    assert changed > 0.2
    assert all(same for _, same in read_back(model, artifact))


@pytest.mark.parametrize("case", [QWEN], indirect=True, scope="module")
def test_what_adapters_share_is_one_file(case: Case, tmp_path: Path) -> None:
    from slmc.backends.executorch.xnnpack.graph import pack_codes  # loads executorch, which warns

    artifacts = [export(beside(case, tmp_path / f"model{seed}", seed), tmp_path / f"artifact{seed}") for seed in (1, 2)]
    first, second = ([digest.of_file(one / name) for one in artifacts] for name in (FOUNDATION, PROGRAM))
    assert first[0] == first[1]
    assert second[0] != second[1]
    with QuantizedReader(case.model.folder) as reader:
        embedding = pack_codes(reader.codes(EMBEDDING, 0, 8))
    counts = [(artifacts[0] / name).read_bytes().count(embedding) for name in (FOUNDATION, PROGRAM)]
    assert counts == [1, 0]  # it is tied: embedding and head are one
    shutil.copyfile(artifacts[1] / PROGRAM, artifacts[0] / PROGRAM)
    with pytest.raises(RunnerError, match="missing or damaged"):
        ExecutorchEngine(artifacts[0])


@pytest.mark.parametrize("case", [LLAMA], indirect=True, scope="module")
def test_another_adapter_s_matrices_read_back_wrong(case: Case, tmp_path: Path) -> None:
    artifact = export(beside(case, tmp_path / "model", 1), tmp_path / "artifact")
    other = beside(case, tmp_path / "other", 2)
    wrong = [name for name, same in read_back(other, artifact) if not same]
    adapted = read_pairs(other.folder / FOLDER, other.architecture)
    assert [name.split()[0] for name in wrong] == [
        one.source for one in projections(other.architecture) if one.source in adapted
    ]
    assert all(name.endswith("adapter") for name in wrong)


@pytest.mark.parametrize("case", [LLAMA], indirect=True, scope="module")
def test_a_file_without_its_foundation_is_refused(case: Case, tmp_path: Path) -> None:
    artifact = export(beside(case, tmp_path / "model", 1), tmp_path / "artifact")
    (artifact / FOUNDATION).unlink()
    with pytest.raises(RunnerError, match="missing or damaged"):
        ExecutorchEngine(artifact)


@pytest.mark.parametrize("case", [LLAMA], indirect=True, scope="module")
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"use_dora": True}, "use_dora = True can't be left unmerged"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "changes model.embed_tokens.weight"),
        ({"target_modules": ["q_proj", "lm_head"]}, "changes lm_head.weight"),
        ({"modules_to_save": ["lm_head"]}, "changes lm_head.weight"),
    ],
)
def test_what_can_only_be_merged_is_refused_by_name(
    case: Case, options: dict[str, object], what: str, tmp_path: Path
) -> None:
    model = beside(case, tmp_path / "model", 1, **options)
    with pytest.raises(AdapterError, match=what):
        read_pairs(model.folder / FOLDER, model.architecture)
