"""Small folders that many tests start from: a tokenizer, a recipe. No torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
CHAT = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}<|assistant|>"


def write_tokenizer(folder: Path, template: str | None = CHAT) -> None:
    """A byte-level tokenizer without merges, so that every byte is a token; specials as in the demo."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {"eos_token": "<|end|>"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def recipe_folder(tmp_path: Path) -> Path:
    """A recipe whose base has a config and a tokenizer, and no weights."""
    folder = tmp_path / "recipe"
    write_tokenizer(folder / "base")
    (folder / "base" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "recipe.yaml").write_text(RECIPE)
    items = [{"id": str(i), "text": f"say {word}", "label": word} for i, word in enumerate(("yes", "no", "yes"))]
    (folder / "eval.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


RECIPE = """\
name: small
version: 1.0.0
base: {path: base}
prompt: {kind: chat}
task: {kind: classify, labels: ["yes", "no"]}
data: {evaluation: eval.jsonl, credit: ours}
context: 64
"""
