"""Small weight files of random numbers, so that tests of the native library need no model and no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt

from slmc.backends.tvm import layout
from slmc.backends.tvm.weights import NO_ROPE, Config, Gate, Kind, Layer, Tensor, WeightsWriter

OPTIONAL = ("qkv_bias", "q_norm", "k_norm", "attention_post_norm", "mlp_post_norm")


@dataclass(frozen=True)
class Model:
    config: Config
    layers: tuple[Layer, ...]
    parts: tuple[str, ...] = ()
    """Those of OPTIONAL that each layer has."""
    wide: tuple[str, ...] = ()
    """Matrices with 8 bits."""
    head: bool = False
    """Of its own. The embedding of the last token is then infinite, so that reading it gives no numbers."""


PLAIN = Model(
    Config(
        vocab_size=33,
        hidden_size=32,
        intermediate_size=96,
        heads=2,
        kv_heads=1,
        head_dim=16,
        rotary_dim=16,
        context=200,
        group=32,
        gate=Gate.SILU,
        activations=0,
        ropes=1,
        rms_eps=1e-6,
        embedding_scale=1.0,
        attention_scale=0.25,
    ),
    layers=(Layer(0, 0), Layer(0, 0)),
)
FULL = Model(
    replace(
        PLAIN.config,
        vocab_size=100,
        hidden_size=64,
        intermediate_size=64,
        heads=4,
        kv_heads=2,
        head_dim=32,
        group=64,
        gate=Gate.GELU_TANH,
        ropes=2,
        embedding_scale=8.0,
    ),
    layers=(Layer(0, 0), Layer(1, 5), Layer(NO_ROPE, 0)),
    parts=OPTIONAL,
    wide=("head", "layers.0.down", "layers.1.qkv", "layers.1.gate_up", "layers.2.o"),
    head=True,
)
MODELS = {"plain": PLAIN, "full": FULL, "exact": replace(FULL, config=replace(FULL.config, activations=1))}


def write(path: Path, model: Model) -> None:
    """Codes and scales of the size that a trained model's have; norms near 1."""
    random = np.random.default_rng(5)
    tensors = [*_ropes(model.config), *_tensors(model)]
    with WeightsWriter(path, model.config, model.layers, tensors) as writer:
        for tensor in tensors:
            if tensor.kind == Kind.FLOAT32:
                values = random.normal("norm" in tensor.name, 0.2, (tensor.rows, tensor.columns))
                writer.floats(tensor.name, values.astype(np.float32))
            else:
                most = 1 << tensor.kind.bits - 1
                codes = random.integers(-most, most, (tensor.rows, tensor.columns), np.int8)
                scales = _scales(tensor, model.config.group, random)
                if model.head and tensor.name == "embedding":
                    scales[model.config.vocab_size - 1] = np.inf
                writer.rows(tensor.name, codes, scales)


def _scales(tensor: Tensor, group: int, random: np.random.Generator) -> layout.Float32:
    """As bfloat16 has them."""
    scales = random.uniform(0.5, 1, (tensor.rows, tensor.columns // group)) / (1 << tensor.kind.bits)
    found: npt.NDArray[np.float32] = scales.astype(ml_dtypes.bfloat16).astype(np.float32)
    return found


def _ropes(config: Config) -> list[Tensor]:
    names = [f"ropes.{i}.{part}" for i in range(config.ropes) for part in ("cosines", "sines")]
    return [Tensor(name, Kind.FLOAT32, config.context, config.rotary_dim // 2) for name in names]


def _tensors(model: Model) -> list[Tensor]:
    c = model.config
    queries, inner = c.heads * c.head_dim, c.intermediate_size
    qkv = queries + 2 * c.kv_heads * c.head_dim
    floats = {
        "attention_norm": c.hidden_size,
        "qkv_bias": layout.padded_rows(qkv),
        "q_norm": c.head_dim,
        "k_norm": c.head_dim,
        "attention_post_norm": c.hidden_size,
        "mlp_norm": c.hidden_size,
        "mlp_post_norm": c.hidden_size,
    }
    matrices = {
        "qkv": (qkv, c.hidden_size),
        "o": (c.hidden_size, queries),
        "gate_up": (2 * inner, c.hidden_size),
        "down": (c.hidden_size, inner),
    }

    def matrix(name: str, rows: int, columns: int) -> Tensor:
        kind = Kind.INT8 if name in model.wide else Kind.INT4
        return Tensor(name, kind, layout.padded_rows(rows), columns)

    found = [matrix("embedding", c.vocab_size, c.hidden_size)]
    for layer in range(len(model.layers)):
        prefix = f"layers.{layer}."
        has = [name for name in floats if name not in OPTIONAL or name in model.parts]
        found += [Tensor(prefix + name, Kind.FLOAT32, 1, floats[name]) for name in has]
        found += [matrix(prefix + name, *shape) for name, shape in matrices.items()]
    found.append(Tensor("norm", Kind.FLOAT32, 1, c.hidden_size))
    if model.head:
        found.append(matrix("head", c.vocab_size, c.hidden_size))
    return found
