"""The embedding by ExecuTorch's own operator for 4 bits, which reads the same bytes as a tied head in XNNPACK."""

from __future__ import annotations

from typing import cast

import executorch.kernels.quantized  # noqa: F401 - registers operators
import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from slmc.architecture import EMBEDDING
from slmc.backends.executorch.xnnpack.graph import pack_codes
from slmc.quant.reader import QuantizedReader


class PackedEmbedding(nn.Module):
    """Rows float32 [1, n, hidden] of tokens int64 [1, n], each pair of columns swapped."""

    def __init__(self, reader: QuantizedReader) -> None:
        super().__init__()
        a = reader.architecture
        codes, scales = reader.codes(EMBEDDING, 0, a.vocab_size), reader.scales(EMBEDDING, 0, a.vocab_size)
        packed = np.frombuffer(pack_codes(codes), np.uint8).reshape(a.vocab_size, -1)
        narrow = scales.astype(ml_dtypes.bfloat16).view(np.int16)
        self.register_buffer("codes", torch.from_numpy(packed.copy()))
        self.register_buffer("scales", torch.from_numpy(narrow).view(torch.bfloat16))

    def forward(self, tokens: Tensor) -> Tensor:
        rows = torch.ops.quantized_decomposed.embedding_4bit.dtype(
            self.codes, self.scales, None, -8, 7, tokens, dtype=torch.float32
        )
        return cast(Tensor, rows)
