"""MLX, for Macs: its own operators for the cache and attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from executorch.exir.backend.partitioner import Partitioner
from torch import Tensor

from slmc.backends.executorch.attention import Attention, CustomAttention, Start
from slmc.backends.executorch.delegates import Stored
from slmc.backends.executorch.delegates.mlx_files import complete
from slmc.backends.executorch.pte import PteFile
from slmc.backends.executorch.xnnpack.graph import unpack_codes
from slmc.quant.reader import QuantizedReader

complete()
from executorch.backends.mlx import MLXPartitioner  # noqa: E402 - not whole before

FP16 = False
_CODES, _SCALES = ".codes_to_packed", ".scales"


def attention(reader: QuantizedReader, context: int) -> Attention:
    return _MlxAttention(reader.architecture, context)


def partitioner() -> Partitioner:
    return MLXPartitioner()


def stored(file: PteFile) -> Iterator[Stored]:
    """The program knows its constants by their names in the traced module, which are in the blocks' order."""
    named = {key.partition("/")[2]: content for key, content in file.named().items()}
    found = [name.removesuffix(_CODES) for name in named if name.endswith(_CODES)]
    for name in sorted(found, key=_place):
        scales, content = np.frombuffer(named[name + _SCALES], np.float32), named[name + _CODES]
        yield Stored(unpack_codes(content, 1, 2 * len(content)), scales.reshape(1, -1))


class _MlxAttention(CustomAttention):
    def _cache_shape(self) -> tuple[int, ...]:
        return 1, self._a.kv_heads, self._context, self._a.head_dim

    def rows(self, table: Tensor, start: Start, count: int) -> Tensor:
        return table.index_select(0, torch.arange(count) + start)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layer: int, start: int) -> Tensor:
        a, (keys, values) = self._a, self._cache(layer)
        torch.ops.mlx.kv_cache_update(keys, k.transpose(1, 2), start)
        torch.ops.mlx.kv_cache_update(values, v.transpose(1, 2), start)
        scale = float(a.attention_scale)
        attended = torch.ops.mlx.custom_sdpa(q.transpose(1, 2), keys, values, start, None, 0.0, True, scale)
        return cast(Tensor, attended).transpose(1, 2).reshape(1, q.shape[1], a.heads * a.head_dim)


def _place(name: str) -> tuple[bool, bool, int]:
    """Sorts the embedding first and the head last; within a block, a module's own order stays."""
    return (
        not name.startswith("embedding"),
        name.startswith("head"),
        int(name.split(".")[1]) if name.startswith("blocks") else 0,
    )
