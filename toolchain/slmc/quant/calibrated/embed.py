"""The embedding of calibration tokens, without the rest of the vocabulary in memory."""

from __future__ import annotations

import torch

from slmc.architecture import EMBEDDING
from slmc.checkpoint.reader import TensorReader


def embedded(reader: TensorReader, ids: torch.Tensor) -> torch.Tensor:
    """The unquantized embedding's rows [..., hidden] for ids [...], no others read."""
    tokens = sorted(set(ids.flatten().tolist()))
    rows = torch.cat([torch.from_numpy(reader.rows(EMBEDDING, token, token + 1)) for token in tokens])
    return rows[torch.searchsorted(torch.tensor(tokens), ids)]
