"""Calibration sequences in batches, padded on the right.

Attention is causal, so padding behind a sequence changes nothing before it; its positions count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slmc.quant.calibration import Calibration, Sequence

TOKENS = 2048
"""About how many positions a batch has: enough to keep a CPU's matrix products busy, little in memory."""


@dataclass(frozen=True)
class Batch:
    ids: torch.Tensor
    """int64 [sequences, length]; without a sequence's last token, after which nothing is asked."""
    there: torch.Tensor
    """bool [sequences, length]: no padding."""
    answers: torch.Tensor
    """bool [sequences, length]: the next token is the answer's."""

    def weights(self, prompt: float) -> torch.Tensor:
        """What an error at each position counts, float32 [sequences, length]: 1 at an answer's, `prompt` before."""
        return self.answers.float() + prompt * (self.there & ~self.answers).float()


def make_batches(calibration: Calibration) -> list[Batch]:
    """Sequences of like lengths together, so that little is padded; the longest first."""
    ordered = sorted(calibration.sequences, key=lambda sequence: len(sequence.ids))
    batches: list[Batch] = []
    while ordered:
        longest = len(ordered[-1].ids) - 1
        count = max(1, TOKENS // longest)
        batches.append(_batch(ordered[-count:], longest))
        del ordered[-count:]
    return batches


def _batch(sequences: list[Sequence], length: int) -> Batch:
    ids = torch.zeros(len(sequences), length, dtype=torch.int64)
    there, answers = (torch.zeros(len(sequences), length, dtype=torch.bool) for _ in range(2))
    for row, sequence in enumerate(sequences):
        asked = len(sequence.ids) - 1
        ids[row, :asked] = torch.tensor(sequence.ids[:-1])
        there[row, :asked] = True
        answers[row, sequence.prompt - 1 : asked] = True
    return Batch(ids, there, answers)
