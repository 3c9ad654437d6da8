"""Calibration sequences in batches, padded on the right.

Attention is causal, so padding behind a sequence changes nothing before it; its positions weigh 0.
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
    """int64 [sequences, length]."""
    weights: torch.Tensor
    """float32 [sequences, length]: what an error at each position counts; 0 for padding."""
    answers: torch.Tensor
    """bool [sequences, length]: the next token is the answer's."""


def make_batches(calibration: Calibration) -> list[Batch]:
    """Sequences of like lengths together, so that little is padded."""
    ordered = sorted(calibration.sequences, key=lambda sequence: len(sequence.ids))
    batches: list[Batch] = []
    while ordered:
        longest = len(ordered[-1].ids)
        count = max(1, TOKENS // longest)
        batches.append(_batch(ordered[-count:], longest, calibration.prompt_weight))
        del ordered[-count:]
    return batches


def _batch(sequences: list[Sequence], length: int, prompt_weight: float) -> Batch:
    ids = torch.zeros(len(sequences), length, dtype=torch.int64)
    weights = torch.zeros(len(sequences), length)
    answers = torch.zeros(len(sequences), length, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        weights[row, : len(sequence.ids)] = prompt_weight
        answers[row, sequence.answer_positions.start : sequence.answer_positions.stop] = True
    weights[answers] = 1.0
    return Batch(ids, weights, answers)
