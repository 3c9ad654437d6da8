#!/usr/bin/env python3
"""Make a model of a well-known shape with random weights: for benches and tests of size, not of sense.

    python scripts/make_random_model.py OUT --shape llama-3.2-1b [--adapter ADAPTER]

OUT becomes a Hugging Face folder: config.json, bf16 weights, and a small byte-level tokenizer with
a chat template; ADAPTER a LoRA adapter for it, rank 16 on every linear. Seeded: the same shape gives
the same bytes. Llama-3.2-1B takes about 15 seconds, Llama-3.1-8B two minutes and 16 GB of disk.
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

from slmc.architecture import TensorSpec
from slmc.checkpoint.reader import row_blocks
from slmc.checkpoint.writer import CheckpointWriter, SafetensorsWriter, TensorFormat
from slmc.config_json import parse_architecture, read_architecture

SEED = 32
SPREAD = 0.02  # about a trained model's
RANK = 16
END, SYSTEM, USER, ASSISTANT = "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rms_norm_eps": 1e-6}
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
}
PHI3 = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "rms_norm_eps": 1e-5, "pad_token_id": None}
SMOLLM3 = {"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "rms_norm_eps": 1e-6, "pad_token_id": None}
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
    "llama-3.1-8b": LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rope_parameters": LLAMA3_ROPE | {"factor": 8.0},
        "tie_word_embeddings": False,
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
    "smollm2-135m": LLAMA
    | {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "smollm3-3b": SMOLLM3
    | {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "no_rope_layer_interval": 4,
        "max_position_embeddings": 65536,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0},
    },
    "gemma-3-1b": GEMMA3
    | {
        "vocab_size": 262144,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
    },
    "phi-4-mini": PHI3
    | {
        "vocab_size": 200064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "sliding_window": 262144,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 48,
            "long_factor": [1.0] * 48,
        },
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
    config = {
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "eos_token_id": end,
        "bos_token_id": None,
        **SHAPES[shape],
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}) + "\n")
    write_tokenizer(folder)
    architecture = parse_architecture(config, path)
    specs = list(architecture.tensors())
    random = np.random.Generator(np.random.SFC64(SEED))
    with CheckpointWriter(folder, [TensorFormat(spec.name, "BF16", spec.shape) for spec in specs]) as writer:
        for spec in specs:
            for block in random_blocks(spec, random, norms=1 - architecture.norm_offset):
                writer.write(spec.name, block)


def write_adapter(base: Path, folder: Path) -> None:
    """Neither factor is zero, so that every linear of the base changes."""
    folder.mkdir(parents=True)
    linears = [spec for spec in read_architecture(base).tensors() if spec.role == "linear"]
    factors = {}
    for spec in linears:
        module = f"base_model.model.{spec.name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = (RANK, spec.shape[1])
        factors[f"{module}.lora_B.weight"] = (spec.shape[0], RANK)
    random = np.random.Generator(np.random.SFC64(SEED))
    formats = [TensorFormat(name, "F32", shape) for name, shape in factors.items()]
    with SafetensorsWriter(folder / "adapter_model.safetensors", formats) as writer:
        for name, shape in factors.items():
            writer.write(name, random.standard_normal(shape, dtype=np.float32) * np.float32(SPREAD))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted({spec.name.split(".")[-2] for spec in linears}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def random_blocks(spec: TensorSpec, random: np.random.Generator, norms: float) -> Iterator[npt.NDArray[np.generic]]:
    """The tensor's rows as bf16: norms around what leaves their input as it is, all else around zero."""
    for start, stop in row_blocks(spec.shape):
        values = random.standard_normal((stop - start, *spec.shape[1:]), dtype=np.float32)
        values *= SPREAD
        values += norms if spec.role == "norm" else 0.0
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
    parser.add_argument("--adapter", type=Path, help="also make an adapter for it in this folder")
    arguments = parser.parse_args()
    write_model(arguments.out, arguments.shape)
    if arguments.adapter:
        write_adapter(arguments.out, arguments.adapter)


if __name__ == "__main__":
    main()
