"""Our merge against peft's own: its merged weights, and what the adapted model answers before any merge."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from slmc.architecture import EMBEDDING, HEAD
from slmc.checkpoint.adapter_config import read_adapter_config
from slmc.checkpoint.lora import merge
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.errors import AdapterError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = [
    pytest.mark.build,
    pytest.mark.filterwarnings("ignore"),  # peft's, of deprecated calls and of what these tests are about
]
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

VOCABULARY = 48
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}),
    "gemma3_text": (transformers.Gemma3TextConfig, {"head_dim": 16}),
    "phi3": (transformers.Phi3Config, {"pad_token_id": 0}),
    "smollm3": (transformers.SmolLM3Config, {"pad_token_id": 0, "no_rope_layers": [1, 0]}),
}
EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_base(folder: Path, *, family: str = "llama", tied: bool = False, dtype: str = "float32") -> Path:
    torch.manual_seed(7)
    kind, more = CONFIGS[family]
    config = kind(**SIZES, **more, tie_word_embeddings=tied)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    for parameter in model.parameters():  # norms and biases too are nowhere at their first values
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def load_base(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make_adapter(base: Path, folder: Path, **options: object) -> Path:
    """An adapter whose every trained tensor is far from where it started."""
    torch.manual_seed(11)
    config = peft.LoraConfig(**({"r": 4, "lora_alpha": 6} | options), task_type="CAUSAL_LM")
    model = peft.get_peft_model(load_base(base), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += (0.02 if "modules_to_save" in name else 0.1) * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def adapted(base: Path, adapter: Path) -> peft.PeftModel:
    return peft.PeftModel.from_pretrained(load_base(base), adapter).eval()


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.arange(VOCABULARY)[None]).logits.numpy()


def merged(base: Path, adapter: Path, out: Path) -> Path:
    out.mkdir()
    merge(open_checkpoint(base), adapter, out, lambda weights: None)
    open_checkpoint(out)
    return out


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max()


LINEAR_KINDS: dict[str, dict[str, object]] = {
    "every linear": {"target_modules": EVERY_LINEAR},
    "all-linear": {"target_modules": "all-linear"},
    "by expression": {"target_modules": r".*\.1\.self_attn\.(q|v)_proj"},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "rank patterns": {
        "target_modules": EVERY_LINEAR,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.(up|gate)_proj": 7, "model.layers.0.self_attn.o_proj": 3},
        "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 1, "o_proj": 16, "down_proj": 9},
    },
    "rslora": {"target_modules": EVERY_LINEAR, "use_rslora": True, "rank_pattern": {"o_proj": 9}},
    "fan_in_fan_out": {"target_modules": ["q_proj", "down_proj"], "fan_in_fan_out": True},
    "whole modules": {"target_modules": ["o_proj"], "modules_to_save": ["norm", "mlp", "k_proj"]},
    "gaussian": {"target_modules": ["v_proj"], "init_lora_weights": "gaussian"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "embedding, fan_in_fan_out": {"target_modules": ["embed_tokens"], "fan_in_fan_out": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head"]},
    "whole embedding and head": {"target_modules": ["o_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}
THROUGH_PEFT: dict[str, dict[str, object]] = {
    "dora": {"target_modules": EVERY_LINEAR, "use_dora": True},
    "dora on the embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "trained tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5, 40]},
    "biases": {"target_modules": ["q_proj", "v_proj"], "bias": "all"},
    "pissa": {"target_modules": ["q_proj"], "init_lora_weights": "pissa"},
}


def named_as_in(family: str, options: Mapping[str, object]) -> dict[str, object]:
    """Phi-3 has one linear for q, k and v, and one for gate and up."""
    if family != "phi3":
        return dict(options)
    parted = {r"(\b[qkv]|\(q\|v\))_proj": "qkv_proj", r"(\bgate|\bup|\(up\|gate\))_proj": "gate_up_proj"}
    text = json.dumps(options)
    for names, fused in parted.items():
        text = re.sub(names, fused, text)
    found: dict[str, object] = json.loads(text)
    return found


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", LINEAR_KINDS | THROUGH_PEFT)
def test_weights_are_those_of_peft(tmp_path: Path, family: str, kind: str) -> None:
    base = make_base(tmp_path / "base", family=family)
    adapter = make_adapter(base, tmp_path / "adapter", **named_as_in(family, (LINEAR_KINDS | THROUGH_PEFT)[kind]))
    assert bool(read_adapter_config(adapter).needs_peft) == (kind in THROUGH_PEFT)
    out = merged(base, adapter, tmp_path / "out")
    wanted = adapted(base, adapter).merge_and_unload().state_dict()
    with TensorReader(out) as reader:
        assert set(reader.names) == set(wanted)
        for name in reader.names:
            assert_close(reader.array(name), wanted[name].numpy())


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", LINEAR_KINDS | THROUGH_PEFT)
def test_a_tied_base_answers_as_the_adapter_was_trained(tmp_path: Path, family: str, kind: str) -> None:
    """Not as peft merges: that adds what is for the embedding to the head as well."""
    base = make_base(tmp_path / "base", family=family, tied=True)
    adapter = make_adapter(base, tmp_path / "adapter", **named_as_in(family, (LINEAR_KINDS | THROUGH_PEFT)[kind]))
    out = merged(base, adapter, tmp_path / "out")
    assert_close(logits(load_base(out)), logits(adapted(base, adapter)))
    parts = "embedding" in kind or "head" in kind
    assert open_checkpoint(out).architecture.tied is not parts


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ],
)
def test_what_was_trained_tied_stays_tied(tmp_path: Path, options: dict[str, object]) -> None:
    base = make_base(tmp_path / "base", tied=True)
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    out = merged(base, adapter, tmp_path / "out")
    assert open_checkpoint(out).architecture.tied
    assert_close(logits(load_base(out)), logits(adapted(base, adapter)))


def test_an_adapter_in_bf16_on_a_bf16_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", dtype="bfloat16")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    weights = safetensors_torch.load_file(adapter / "adapter_model.safetensors")
    halves = {key: values.bfloat16() for key, values in weights.items()}
    safetensors_torch.save_file(halves, adapter / "adapter_model.safetensors")
    out = merged(base, adapter, tmp_path / "out")
    assert_close(logits(load_base(out)), logits(adapted(base, adapter)))


def test_untouched_tensors_keep_their_bytes(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", dtype="bfloat16", tied=True)
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    out = merged(base, adapter, tmp_path / "out")
    with TensorReader(base) as before, TensorReader(out) as after:
        assert set(before.names) == set(after.names)
        for name in before.names:
            rows = before.shape(name)[0]
            if "q_proj.weight" in name:
                assert after.dtype(name) == "F32"
                assert not np.array_equal(before.array(name), after.array(name))
            else:
                assert after.dtype(name) == "BF16"
                assert before.stored_rows(name, 0, rows).tobytes() == after.stored_rows(name, 0, rows).tobytes()


def test_a_saved_base_layer_that_is_the_base_changes_nothing(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=True, dtype="bfloat16")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    path = adapter / "adapter_model.safetensors"
    weights = safetensors_torch.load_file(path)
    weights["base_model.model.model.embed_tokens.weight"] = load_base(base).model.embed_tokens.weight.detach()
    safetensors_torch.save_file(weights, path)
    out = merged(base, adapter, tmp_path / "out")
    assert open_checkpoint(out).architecture.tied
    with TensorReader(out) as reader:
        assert reader.dtype(EMBEDDING) == "BF16"
        assert HEAD not in reader.names


def test_lora_bias_where_the_base_has_a_bias(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family="qwen2")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"], lora_bias=True)
    out = merged(base, adapter, tmp_path / "out")
    assert_close(logits(load_base(out)), logits(adapted(base, adapter)))


def test_another_tuner_goes_through_peft(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    torch.manual_seed(3)
    config = peft.LoHaConfig(r=4, alpha=4, target_modules=["q_proj"], init_weights=False)
    peft.get_peft_model(load_base(base), config).save_pretrained(tmp_path / "adapter")
    out = merged(base, tmp_path / "adapter", tmp_path / "out")
    assert_close(logits(load_base(out)), logits(adapted(base, tmp_path / "adapter")))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias"),
        ({"target_modules": ["q_proj"], "layer_replication": [(0, 2), (0, 2)]}, "layer_replication"),
    ],
)
def test_what_peft_cannot_merge_is_refused(tmp_path: Path, options: dict[str, object], match: str) -> None:
    base = make_base(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = make_adapter(base, tmp_path / "adapter", **options)
    with pytest.raises(AdapterError, match=match):
        merged(base, adapter, tmp_path / "out")


def test_a_tuner_that_has_no_merge_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(load_base(base), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterError, match="PROMPT_TUNING"):
        merged(base, tmp_path / "adapter", tmp_path / "out")


def edit_magnitudes(weights: dict[str, np.ndarray]) -> None:
    next(values for key, values in weights.items() if "magnitude" in key)[0] = np.nan


def drop_magnitude(weights: dict[str, np.ndarray]) -> None:
    del weights[next(key for key in weights if "magnitude" in key)]


def add_key(weights: dict[str, np.ndarray]) -> None:
    weights["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = np.zeros((4, 32), np.float32)


@pytest.mark.parametrize(
    ("edit", "match"),
    [(edit_magnitudes, "NaN"), (drop_magnitude, "is missing in the adapter"), (add_key, "fits nothing in the base")],
)
def test_peft_gets_whole_adapters_only(
    tmp_path: Path, edit: Callable[[dict[str, np.ndarray]], None], match: str
) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"], use_dora=True)
    path = adapter / "adapter_model.safetensors"
    weights = safetensors_numpy.load_file(path)
    edit(weights)
    safetensors_numpy.save_file(weights, path)
    with pytest.raises(AdapterError, match=match):
        merged(base, adapter, tmp_path / "out")
