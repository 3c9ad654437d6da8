"""Whole builds of families beyond the demo's, with an adapter: each rung of the ladder against the one before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from slmc.bundle.verify import verify
from slmc.pipeline import build
from slmc.plan import resolve
from slmc.recipe import load_recipe
from slmc.store import Store
from slmc.target import load_target

from ..unit.conftest import write_tokenizer
from .variants import VARIANTS, write_model

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.build, pytest.mark.filterwarnings("ignore")]  # deprecations in the libraries

RECIPE = """\
name: family
version: 1.0.0
base: {path: base}
adapter: {path: adapter}
prompt: {kind: chat}
task: {kind: generate, max_tokens: 12}
data: {evaluation: eval.jsonl, credit: ours}
context: 256
targets: {host: {activations: float32}}
"""
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "it", "sleeps"]


def write_recipe(variant: str, folder: Path) -> None:
    """Prompts shorter and longer than the model's windows."""
    chosen = VARIANTS[variant]
    write_model(dataclasses.replace(chosen, options={**chosen.options, "vocab_size": 320}), folder / "base")
    write_tokenizer(folder / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(folder / "adapter")
    (folder / "recipe.yaml").write_text(RECIPE)
    random = np.random.default_rng(0)
    items = [
        {"id": str(count), "text": " ".join(random.choice(WORDS, count)), "answer": "yes"} for count in range(1, 33, 2)
    ]
    (folder / "eval.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all, which has the native library once it was built."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("variant", ["gemma3_text: windows and full layers", "phi3: window", "smollm3: chosen layers"])
def test_a_build_keeps_its_promises(variant: str, store: Store, tmp_path: Path) -> None:
    write_recipe(variant, tmp_path / "recipe")
    plan = resolve(load_recipe(tmp_path / "recipe"), load_target("host"))
    built = build(plan, store, tmp_path / "DIST")
    verify(built.bundle)
    assert built.report is not None
    quantized, compiled = built.report.rung("quantized"), built.report.rung("compiled")
    assert quantized.adapter is not None
    assert quantized.adapter.whole is not None
    assert quantized.adapter.whole.coefficient == pytest.approx(1.0, abs=0.05)
    assert len(quantized.adapter.tensors) == sum(spec.role == "linear" for spec in plan.architecture.tensors())
    assert compiled.read_back is not None
    assert (compiled.read_back.tensors > 0, compiled.read_back.wrong) == (True, ())
    for rung, most in ((quantized, 0.1), (compiled, 1e-8)):
        assert rung.answers is not None
        assert rung.answers.prompt_mismatches == 0
        compared = rung.answers.against_previous
        assert compared is not None
        assert compared.divergence is not None
        assert compared.divergence.mean < most
    assert compared.agreement is not None
    assert compared.agreement.share == 1.0
