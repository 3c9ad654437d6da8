"""Attention with its cache, between a decoder's blocks.

    forward(q, k, v, layer, start) -> [1, n, heads * head_dim]

q is float32 [1, n, heads, head_dim], k and v the same with kv_heads.
"""

from __future__ import annotations

import math
from typing import cast

import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401 - registers operators
import torch
from torch import Tensor, nn

from slmc.architecture import Architecture

Start = int | Tensor
"""Position of the first token; as a tensor int64 [1] where nothing may depend on its value."""
_HIDDEN = -3e4
"""Added to a score that nobody sees: fp16 holds it, and its exponential is 0."""


class Attention(nn.Module):
    """Holds the cache of each layer: keys and values, float32 [1, context, kv_heads, head_dim]."""

    def __init__(self, architecture: Architecture, context: int) -> None:
        super().__init__()
        self._a, self._context = architecture, context
        for layer in range(architecture.layers):
            for name in ("keys", "values"):
                self.register_buffer(f"{name}_{layer}", torch.zeros(self._cache_shape()), persistent=False)

    def _cache_shape(self) -> tuple[int, ...]:
        return 1, self._context, self._a.kv_heads, self._a.head_dim

    def start(self, position: Tensor, count: int) -> Start:
        """Where `count` tokens go, as the other methods take it."""
        raise NotImplementedError

    def rows(self, table: Tensor, start: Start, count: int) -> Tensor:
        """Of a table [context, any], those of `count` tokens."""
        raise NotImplementedError

    def _cache(self, layer: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"keys_{layer}"), getattr(self, f"values_{layer}")

    def _window(self, layer: int) -> int | None:
        """None where a layer sees all that the cache can hold."""
        window = self._a.layer_kinds[layer].window
        return window if window and window < self._context else None


class CustomAttention(Attention):
    """By ExecuTorch's own operators, `llama::update_cache` and `llama::custom_sdpa`, for any number of tokens."""

    def __init__(self, architecture: Architecture, context: int, *, only_causal: bool = False) -> None:
        """`only_causal` is for a delegate whose operator takes neither a mask nor a scale."""
        super().__init__(architecture, context)
        self._only_causal = only_causal

    def start(self, position: Tensor, count: int) -> int:
        start = cast(int, position[0].item())
        torch._check(start >= 0)  # type: ignore[no-untyped-call]
        torch._check(start + count <= self._context)  # type: ignore[no-untyped-call]
        return start

    def rows(self, table: Tensor, start: Start, count: int) -> Tensor:
        return table.narrow(0, cast(int, start), count)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layer: int, start: int) -> Tensor:
        a, (keys, values), count = self._a, self._cache(layer), q.shape[1]
        window, scale = self._window(layer), float(a.attention_scale)
        torch.ops.llama.update_cache(k, keys, start)
        torch.ops.llama.update_cache(v, values, start)
        if self._only_causal:
            usual = 1 / math.sqrt(a.head_dim)
            q = q if math.isclose(scale, usual) else q * (scale / usual)
            attended = torch.ops.llama.custom_sdpa(q, keys, values, start, None, 0.0, True)
        else:
            mask = _window_mask(start, count, self._context, window) if window else None
            attended = torch.ops.llama.custom_sdpa(q, keys, values, start, mask, 0.0, mask is None, scale)
        return cast(Tensor, attended.reshape(1, count, a.heads * a.head_dim))


def _window_mask(start: int, count: int, context: int, window: int) -> Tensor:
    """float32 [n, context]: 0 for a position that a query sees, minus infinity for any other."""
    queries, keys = (start + torch.arange(count)).unsqueeze(1), torch.arange(context).unsqueeze(0)
    seen = (keys <= queries) & (keys > queries - window)
    return torch.where(seen, 0.0, float("-inf"))


class PlainAttention(Attention):
    """By nothing but torch's own operators, for one token."""

    def start(self, position: Tensor, count: int) -> Tensor:
        assert count == 1, f"{count} tokens"
        return position

    def rows(self, table: Tensor, start: Start, count: int) -> Tensor:
        return table.index_select(0, cast(Tensor, start))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layer: int, start: Tensor) -> Tensor:
        a, (keys, values), window = self._a, self._cache(layer), self._window(layer)
        places = torch.arange(self._context)
        here = (places == start).reshape(1, -1, 1, 1)
        # Written whole: converters drop the writes of single rows.
        keys.copy_(torch.where(here, k, keys))
        values.copy_(torch.where(here, v, values))
        seen = places <= start if window is None else (places <= start) & (places > start - window)
        mask = torch.where(seen, 0.0, _HIDDEN)
        grouped = q.reshape(1, a.kv_heads, a.heads // a.kv_heads, a.head_dim) * float(a.attention_scale)
        scores = grouped @ keys.permute(0, 2, 3, 1) + mask
        attended = torch.softmax(scores, -1) @ values.permute(0, 2, 1, 3)
        return attended.reshape(1, 1, a.heads * a.head_dim)
