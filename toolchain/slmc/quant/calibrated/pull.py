"""Draws of v at what the head reads, and where they pull: see `survey`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

CHUNK = 64
"""Positions whose logits are in memory at once."""


@dataclass(frozen=True)
class Pull:
    gradient: torch.Tensor
    """Of v·logits at what the head reads: float32 [positions, hidden]."""
    doubt: torch.Tensor
    """How undecided p is, 1 - Σ p² [positions]."""
    moved: torch.Tensor
    """What a change of the head adds to v·logits [positions]."""


def pull(read: torch.Tensor, head: torch.Tensor, change: torch.Tensor | None, generator: torch.Generator) -> Pull:
    """A draw of v at each of the positions that the head reads, float32 [positions, hidden]."""
    gradient, doubt, moved = [], [], []
    for start in range(0, len(read), CHUNK):
        part = read[start : start + CHUNK]
        p = torch.softmax(part @ head.T, dim=-1)
        spread = p.sqrt() * torch.randn(p.shape, generator=generator)
        v = spread - p * spread.sum(-1, keepdim=True)
        gradient.append(v @ head)
        doubt.append((1 - p.square().sum(-1)).clamp(min=0))
        moved.append(torch.zeros(len(part)) if change is None else ((v @ change) * part).sum(-1))
    return Pull(torch.cat(gradient), torch.cat(doubt), torch.cat(moved))


def pulled_back(asked: torch.Tensor, hidden: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Gradients of several draws at the last layer's output."""
    return torch.stack([torch.autograd.grad(asked, hidden, one, retain_graph=True)[0] for one in gradients])


def by_sequence(values: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Sums over each sequence of values at its answer's positions."""
    spread = torch.zeros(answers.shape)
    spread[answers] = values
    return spread.sum(-1)
