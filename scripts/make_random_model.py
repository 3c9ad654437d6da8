#!/usr/bin/env python3
"""Make a model of a well-known shape with random weights: for benches and tests of size, not of sense.

    python scripts/make_random_model.py OUT --shape llama-3.2-1b

OUT becomes a Hugging Face folder: config.json, bf16 weights, and a small byte-level tokenizer with
a chat template. Seeded: the same shape gives the same bytes. Llama-3.2-1B takes about 15 seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from slmc.architecture import TensorSpec, parse_architecture
from slmc.checkpoint.reader import row_blocks
from slmc.checkpoint.writer import CheckpointWriter, TensorFormat

SEED = 32
SPREAD = 0.02  # about a trained model's
END, SYSTEM, USER, ASSISTANT = "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rms_norm_eps": 1e-6}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES: Mapping[str, Mapping[str, object]] = {
    "llama-3.2-1b": LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rope_parameters": LLAMA3_ROPE,
    },
    "qwen3-0.6b": QWEN3
    | {
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "qwen2.5-0.5b": QWEN2
    | {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "tiny": LLAMA
    | {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "rope_parameters": LLAMA3_ROPE,
    },
}


def write_model(folder: Path, shape: str) -> None:
    folder.mkdir(parents=True)
    end = len(pre_tokenizers.ByteLevel.alphabet())  # the first token after the bytes, see write_tokenizer
    config = SHAPES[shape] | {
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "eos_token_id": end,
        "bos_token_id": None,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}) + "\n")
    write_tokenizer(folder)
    specs = list(parse_architecture(config, path).tensors())
    random = np.random.Generator(np.random.SFC64(SEED))
    with CheckpointWriter(folder, [TensorFormat(spec.name, "BF16", spec.shape) for spec in specs]) as writer:
        for spec in specs:
            for block in random_blocks(spec, random):
                writer.write(spec.name, block)


def random_blocks(spec: TensorSpec, random: np.random.Generator) -> Iterator[npt.NDArray[np.generic]]:
    """The tensor's rows as bf16: norms around one, all else around zero."""
    for start, stop in row_blocks(spec.shape):
        values = random.standard_normal((stop - start, *spec.shape[1:]), dtype=np.float32)
        values *= SPREAD
        values += 1.0 if spec.role == "norm" else 0.0
        yield values.astype(ml_dtypes.bfloat16)


def write_tokenizer(folder: Path) -> None:
    """Bytes as tokens, then the markers of the chat template."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, SYSTEM, USER, ASSISTANT])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model of a known shape with random weights.")
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    arguments = parser.parse_args()
    write_model(arguments.out, arguments.shape)


if __name__ == "__main__":
    main()
