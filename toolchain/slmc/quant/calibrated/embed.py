"""The embedding of calibration tokens, without the rest of the vocabulary in memory."""

from __future__ import annotations

import torch

from slmc.architecture import EMBEDDING
from slmc.quant.calibrated.job import Job


def embedded(job: Job, ids: torch.Tensor) -> torch.Tensor:
    """The unquantized embedding's rows [..., hidden] for ids [...], no others read."""
    unique, places = ids.unique(return_inverse=True)
    rows = [torch.from_numpy(job.reader.rows(EMBEDDING, token, token + 1)) for token in unique.tolist()]
    return torch.cat(rows)[places]
