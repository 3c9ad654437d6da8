"""Learn a layer's roundings and scales by gradient, against what the unquantized layer gives.

Each weight's rounding is shifted by up to half a step and each scale stretched (as AutoRound does,
Cheng et al. 2023, arXiv:2309.05516); rounding itself passes gradients straight through. Codes are those
of the start until a shift moves them, whatever their scale becomes. The learning keeps what is best on
sequences that it does not learn from, so it stops early and never ends behind its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from slmc.names import Scheme
from slmc.quant.calibrated.gptq import Rounded
from slmc.quant.calibrated.layer import LayerModel
from slmc.quant.calibrated.spill import Spill

STEPS = 200
SHIFT_RATE = 1e-3
"""Of Adam, in rounding steps."""
SCALE_RATE = 3e-4
"""Of Adam, for the logarithm of a scale."""
HELD_OUT = 8
"""One sequence in so many is not learned from. Where there are fewer, nothing is learned."""
CHECK_EVERY = 20
PATIENCE = 3
"""Checks in a row without a better result, after which learning stops."""


@dataclass(frozen=True)
class Lesson:
    """A batch, the layer's input and what its output should be; read from the disk when asked for."""

    weights: torch.Tensor
    """What an error at each position counts, float32 [sequences, length]."""
    first: int
    """The number of the batch's first sequence among those of all batches."""
    index: int
    source: Spill
    target: Spill
    metric: torch.Tensor
    """L of the loss's curvature L Lᵀ at the layer's output, float32 [hidden, hidden]."""

    @property
    def hidden(self) -> torch.Tensor:
        return self.source.get(self.index)["hidden"]

    def loss(self, found: torch.Tensor, *, held_out: bool) -> torch.Tensor:
        """What the error of the layer's output [sequences, length, hidden] does to the answers."""
        wanted = self.target.get(self.index)["hidden"]
        chosen = torch.arange(self.first, self.first + len(found)) % HELD_OUT == HELD_OUT - 1
        weights = self.weights * (chosen if held_out else ~chosen)[:, None]
        error: torch.Tensor = (((found - wanted) @ self.metric).square().mean(-1) * weights).sum()
        return error


class _Learnt(torch.nn.Module):
    """The quantized matrix as a function of its shifts and stretches."""

    def __init__(self, start: Rounded, scheme: Scheme) -> None:
        super().__init__()
        self._start, self._scheme = start, scheme
        steps = start.scales[:, :, None]
        self._places = (start.wanted.reshape(*start.scales.shape, -1) / steps).flatten(1)
        self.shift = torch.nn.Parameter(torch.zeros_like(start.wanted))
        self.stretch = torch.nn.Parameter(torch.zeros_like(start.scales))

    def forward(self) -> torch.Tensor:
        return self.rounded().weights()

    def rounded(self) -> Rounded:
        exact = self._start.scales * self.stretch.exp()
        scales = exact + (exact.detach().bfloat16().float() - exact.detach())
        places = self._places + self.shift.clamp(-0.5, 0.5)
        straight = places + (places.detach().round() - places.detach())
        return Rounded(straight.clamp(self._scheme.lowest, self._scheme.highest), scales, self._start.wanted)


def learn(
    model: LayerModel,
    layer: torch.nn.Module,
    start: Mapping[str, Rounded],
    schemes: Mapping[str, Scheme],
    lessons: Sequence[Lesson],
    seed: int,
) -> dict[str, Rounded]:
    """Better roundings of a layer's matrices, by module name; those of `start` where none are found."""
    learnt = {module: _Learnt(rounded, schemes[module]) for module, rounded in start.items()}
    rates = [
        {"params": [one.shift for one in learnt.values()], "lr": SHIFT_RATE},
        {"params": [one.stretch for one in learnt.values()], "lr": SCALE_RATE},
    ]
    optimizer = torch.optim.Adam(rates, betas=(0.9, 0.99))
    fading = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    best, least, since = dict(start), _held_out(model, layer, learnt, lessons), 0
    for step, lesson in enumerate(_shuffled(lessons, seed), 1):
        optimizer.zero_grad()
        found = model.whole(layer, lesson.hidden, {f"{name}.weight": one() for name, one in learnt.items()})
        torch.autograd.backward(lesson.loss(found, held_out=False))
        optimizer.step()
        fading.step()
        if step % CHECK_EVERY == 0:
            loss = _held_out(model, layer, learnt, lessons)
            since = 0 if loss < least else since + 1
            if loss < least:
                best, least = {name: _detached(one) for name, one in learnt.items()}, loss
            if since == PATIENCE:
                break
    return best


def _shuffled(lessons: Sequence[Lesson], seed: int) -> Iterator[Lesson]:
    """STEPS lessons, each as often as the others."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in range(STEPS):
        order = order or torch.randperm(len(lessons), generator=generator).tolist()
        yield lessons[order.pop()]


@torch.no_grad()
def _held_out(
    model: LayerModel, layer: torch.nn.Module, learnt: Mapping[str, _Learnt], lessons: Sequence[Lesson]
) -> float:
    weights = {f"{name}.weight": one() for name, one in learnt.items()}
    return sum(float(one.loss(model.whole(layer, one.hidden, weights), held_out=True)) for one in lessons)


@torch.no_grad()
def _detached(learnt: _Learnt) -> Rounded:
    found = learnt.rounded()
    return Rounded(found.codes.detach(), found.scales.detach(), found.wanted)
