"""The decoder around its blocks: embedding, cache and attention, by ExecuTorch's own operators.

    forward(tokens int64 [1, n], position int64 [1]) -> logits float32

A block is any module that takes and gives what `xnnpack.blocks` says: one that a delegate has compiled, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import executorch.extension.llm.custom_ops.custom_ops
import executorch.kernels.quantized  # noqa: F401 - both register operators
import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from slmc.architecture import EMBEDDING, Architecture
from slmc.backends.executorch.xnnpack.graph import pack_codes
from slmc.checkpoint.dtypes import Float32
from slmc.models.decoder import rope_tables
from slmc.quant.reader import QuantizedReader


def rope_inputs(a: Architecture, context: int) -> dict[str, Float32]:
    """Of each rope by name, as the blocks take them: float32 [context, head_dim]."""
    found = {}
    for i, (cosines, sines) in enumerate(rope_tables(a, context)):
        rest = np.zeros((context, a.head_dim - a.rotary_dim), np.float32)
        found[f"cosines_{i}"] = np.concatenate([cosines, cosines, rest + 1], 1)
        found[f"sines_{i}"] = np.concatenate([-sines, sines, rest], 1)
    return found


class Weights(nn.Module):
    """What stays outside the blocks: the embedding, 4-bit; the ropes; and the cache."""

    def __init__(self, reader: QuantizedReader, context: int) -> None:
        super().__init__()
        a = reader.architecture
        codes, scales = reader.codes(EMBEDDING, 0, a.vocab_size), reader.scales(EMBEDDING, 0, a.vocab_size)
        packed = np.frombuffer(pack_codes(codes), np.uint8).reshape(a.vocab_size, -1)
        self.register_buffer("embedding", torch.from_numpy(packed.copy()))
        narrow = scales.astype(ml_dtypes.bfloat16).view(np.int16)
        self.register_buffer("embedding_scales", torch.from_numpy(narrow).view(torch.bfloat16))
        for name, table in rope_inputs(a, context).items():
            self.register_buffer(name, torch.from_numpy(table))
        for layer in range(a.layers):
            for name in ("keys", "values"):
                cache = torch.zeros(1, context, a.kv_heads, a.head_dim)
                self.register_buffer(f"{name}_{layer}", cache, persistent=False)

    def cache(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values, float32 [1, context, kv_heads, head_dim]."""
        return getattr(self, f"keys_{layer}"), getattr(self, f"values_{layer}")


class Decoder(nn.Module):
    """Logits of the last token, [1, 1, vocab], or with `every` of each, [1, n, vocab]."""

    def __init__(
        self, architecture: Architecture, weights: Weights, blocks: Sequence[nn.Module], head: nn.Module, *, every: bool
    ) -> None:
        super().__init__()
        self._architecture, self._every = architecture, every
        self.weights, self.blocks, self.head = weights, nn.ModuleList(blocks), head

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        a, count, start = self._architecture, tokens.shape[1], cast(int, position[0].item())
        context = self.weights.cache(0)[0].shape[1]
        torch._check(start >= 0)  # type: ignore[no-untyped-call]
        torch._check(start + count <= context)  # type: ignore[no-untyped-call]
        embedding, scales = self.weights.embedding, self.weights.embedding_scales
        rows = torch.ops.quantized_decomposed.embedding_4bit.dtype(
            embedding, scales, None, -8, 7, tokens, dtype=torch.float32
        )
        ropes = self._ropes(start, count)
        x, q, k, v = self.blocks[0](rows, *ropes[0])
        for layer in range(a.layers):
            attended = self._attend(q, k, v, layer, start)
            if layer + 1 < a.layers:
                x, q, k, v = self.blocks[layer + 1](attended, x, *ropes[layer + 1])
            else:
                (x,) = self.blocks[layer + 1](attended, x)
        (logits,) = self.head(x if self._every else x[:, -1:])
        return cast(Tensor, logits)

    def _ropes(self, start: int, count: int) -> list[list[Tensor]]:
        """Of each layer: cosines and sines [n, 1, head_dim], or none."""
        tables = [
            [getattr(self.weights, f"{name}_{i}").narrow(0, start, count).unsqueeze(1) for name in ("cosines", "sines")]
            for i in range(len(self._architecture.ropes))
        ]
        return [[] if kind.rope is None else tables[kind.rope] for kind in self._architecture.layer_kinds]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, start: int) -> Tensor:
        """[1, n, heads * head_dim], after k and v are in the cache."""
        a, (keys, values) = self._architecture, self.weights.cache(layer)
        torch.ops.llama.update_cache(k, keys, start)
        torch.ops.llama.update_cache(v, values, start)
        window = a.layer_kinds[layer].window
        # What is in the cache is all within a window that is no shorter.
        mask = _window_mask(start, q.shape[1], keys.shape[1], window) if window and window < keys.shape[1] else None
        attended = torch.ops.llama.custom_sdpa(q, keys, values, start, mask, 0.0, mask is None, a.attention_scale)
        return cast(Tensor, attended.reshape(1, q.shape[1], a.heads * a.head_dim))


def _window_mask(start: int, count: int, context: int, window: int) -> Tensor:
    """float32 [n, context]: 0 for a position that a query sees, minus infinity for any other."""
    queries, keys = (start + torch.arange(count)).unsqueeze(1), torch.arange(context).unsqueeze(0)
    seen = (keys <= queries) & (keys > queries - window)
    return torch.where(seen, 0.0, float("-inf"))
