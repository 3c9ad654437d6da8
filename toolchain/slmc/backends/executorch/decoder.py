"""The decoder around its blocks, whatever runs them.

    forward(tokens int64 [1, n], position int64 [1]) -> logits float32

A block is any module that takes and gives what `blocks` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from slmc.architecture import Architecture
from slmc.backends.executorch.attention import Attention, Start
from slmc.models.decoder import rope_inputs


class Ropes(nn.Module):
    def __init__(self, architecture: Architecture, context: int) -> None:
        super().__init__()
        self._kinds, self._count = architecture.layer_kinds, len(architecture.ropes)
        for name, table in rope_inputs(architecture, context).items():
            self.register_buffer(name, torch.from_numpy(table))

    def forward(self, attention: Attention, start: Start, count: int) -> list[list[Tensor]]:
        """Of each layer: cosines and sines [n, 1, head_dim], or none."""
        tables = [
            [attention.rows(getattr(self, f"{name}_{i}"), start, count).unsqueeze(1) for name in ("cosines", "sines")]
            for i in range(self._count)
        ]
        return [[] if kind.rope is None else tables[kind.rope] for kind in self._kinds]


class Decoder(nn.Module):
    """Logits of the last token, [1, 1, vocab], or with `every` of each, [1, n, vocab].

    `blocks` are in their order, the head last.
    """

    def __init__(
        self, embedding: nn.Module, ropes: Ropes, attention: Attention, blocks: Sequence[nn.Module], *, every: bool
    ) -> None:
        super().__init__()
        self.embedding, self.ropes, self.attention = embedding, ropes, attention
        *first, self.head = blocks
        self.blocks, self._every = nn.ModuleList(first), every

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        layers, count = len(self.blocks) - 1, tokens.shape[1]
        start = self.attention.start(position, count)
        ropes = self.ropes(self.attention, start, count)
        x, q, k, v = self.blocks[0](self.embedding(tokens), *ropes[0])
        for layer in range(layers):
            attended = self.attention(q, k, v, layer, start)
            if layer + 1 < layers:
                x, q, k, v = self.blocks[layer + 1](attended, x, *ropes[layer + 1])
            else:
                (x,) = self.blocks[layer + 1](attended, x)
        (logits,) = self.head(x if self._every else x[:, -1:])
        return cast(Tensor, logits)
