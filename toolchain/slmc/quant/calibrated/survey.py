"""What the answers depend on: how curved the task's loss is at embedding, head and every layer's output.

A small change e of a hidden state moves the distribution p of the next token by about ½ eᵀ F e nats of
Kullback-Leibler divergence, F = Jᵀ (diag p - p pᵀ) J being Fisher's information and J the derivative of
the logits. With u from a standard normal distribution, v = √p u - p (√p·u) has just that covariance,
diag p - p pᵀ, so gradients of v·logits have F for theirs: one run of the unquantized model forwards and
one backwards, layer by layer, sample it at every position.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file

from slmc.architecture import EMBEDDING, HEAD
from slmc.quant.calibrated.batches import Batch
from slmc.quant.calibrated.embed import embedded
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.moments import Moments
from slmc.quant.calibrated.spill import Spill

SURVEYED = 8192
"""About how many positions are looked at: both runs go through the whole model."""
CHUNK = 64
"""Positions whose logits are in memory at once."""


@dataclass(frozen=True)
class Survey:
    """Symmetric matrices float32 [hidden, hidden], in nats a sequence but for a factor that all share."""

    embedding: torch.Tensor
    """Of a change of the embedding's output."""
    head: torch.Tensor
    """Of a change of a row of the head, mean over rows."""
    outputs: tuple[torch.Tensor, ...]
    """Of a change of each layer's output; empty where nothing is learned from them."""


def survey(job: Job) -> Survey:
    """From the scratch folder where it is there."""
    path = job.scratch / "survey.safetensors"
    if not path.exists():
        partial = path.with_suffix(".partial")
        save_file(_survey(job), partial)
        partial.rename(path)
    found = load_file(path)
    outputs = tuple(found[f"output.{layer}"] for layer in range(job.architecture.layers if job.learning else 0))
    return Survey(found["embedding"], found["head"], outputs)


def _survey(job: Job) -> dict[str, torch.Tensor]:
    batches, folder = surveyed(job.batches), job.scratch / "survey"
    spills = [Spill(folder / f"{layer:05}") for layer in range(job.architecture.layers + 1)]
    _forwards(job, batches, spills)
    found, gradients = _head(job, batches, spills[-1])
    for layer in reversed(range(job.architecture.layers)):
        if job.learning:
            found[f"output.{layer}"] = _curvature(batches, gradients)
        module = job.model.load(layer)
        for index in range(len(batches)):
            hidden = spills[layer].get(index)["hidden"].requires_grad_()
            (gradients[index],) = torch.autograd.grad(job.model.whole(module, hidden), hidden, gradients[index])
    found["embedding"] = _curvature(batches, gradients)
    shutil.rmtree(folder)
    return found


def surveyed(batches: Sequence[Batch]) -> Sequence[Batch]:
    """As many batches, from the longest sequences on, as make up enough positions."""
    seen = 0
    for count, batch in enumerate(batches, 1):
        seen += int((batch.weights > 0).sum())
        if seen >= SURVEYED:
            return batches[:count]
    return batches


@torch.no_grad()
def _forwards(job: Job, batches: Sequence[Batch], spills: Sequence[Spill]) -> None:
    """Leave what every layer reads, and what comes out of the last."""
    for index, batch in enumerate(batches):
        spills[0].put(index, hidden=embedded(job, batch.ids))
    for layer in range(job.architecture.layers):
        module = job.model.load(layer)
        for index in range(len(batches)):
            spills[layer + 1].put(index, hidden=job.model.whole(module, spills[layer].get(index)["hidden"]))


def _head(job: Job, batches: Sequence[Batch], last: Spill) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The head's own curvature, and each batch's gradients of v·logits at the last layer's output."""
    head = torch.from_numpy(job.reader.array(EMBEDDING if job.architecture.tied else HEAD))
    norm, moments = job.model.final_norm(), Moments(job.architecture.hidden_size, cross=False)
    generator, gradients = torch.Generator().manual_seed(job.seed), []
    for index, batch in enumerate(batches):
        hidden = last.get(index)["hidden"].requires_grad_()
        read = norm(hidden)
        asked = read[batch.answers]
        pulled, doubt = _pull(asked.detach(), head, generator)
        moments.add(asked.detach(), doubt)
        gradients += torch.autograd.grad(asked, hidden, pulled)
    return {"head": moments.sum() / len(head)}, gradients


def _pull(read: torch.Tensor, head: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of v·logits [positions, hidden] for what the head reads there, and how undecided p is: 1 - Σ p²."""
    pulled, doubt = [], []
    for part in read.split(CHUNK):
        p = torch.softmax(part @ head.T, dim=-1)
        spread = p.sqrt() * torch.randn(p.shape, generator=generator)
        pulled.append((spread - p * spread.sum(-1, keepdim=True)) @ head)
        doubt.append(1 - p.square().sum(-1))
    return torch.cat(pulled), torch.cat(doubt)


def _curvature(batches: Sequence[Batch], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of g gᵀ over all positions."""
    moments = Moments(gradients[0].shape[-1], cross=False)
    for batch, gradient in zip(batches, gradients, strict=True):
        moments.add(gradient, (batch.weights > 0).float())
    return moments.sum()
