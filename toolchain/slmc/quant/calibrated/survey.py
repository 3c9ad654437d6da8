"""What the answers depend on: how curved the task's loss is at embedding, head and the outputs of layers and matrices.

A small change e of a hidden state moves the distribution p of the next token by about ½ eᵀ F e nats of
Kullback-Leibler divergence, F = Jᵀ (diag p - p pᵀ) J being Fisher's information and J the derivative of
the logits. With u from a standard normal distribution, v = √p u - p (√p·u) has just that covariance,
diag p - p pᵀ, so gradients of v·logits have F for theirs: one run of the unquantized model forwards and
a few backwards, layer by layer, sample it at every position.

An error at a prompt's position reaches the answers through attention alone, and less of it in every layer: how
much, beside one at an answer's own position, is the ratio of the squared gradients there.

    survey/head.safetensors         curvature of head and embedding; what a prompt's positions count;
                                    what 4 bits rather than 8 add to v·logits
    survey/layer-00003.safetensors  curvature at the layer's output and at those of its matrices
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slmc.architecture import EMBEDDING, HEAD
from slmc.checkpoint.reader import row_blocks
from slmc.console import Advance, progress
from slmc.names import Scheme
from slmc.quant.calibrated.batches import Batch
from slmc.quant.calibrated.embed import embedded
from slmc.quant.calibrated.files import read_tensors, write_tensors
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.layer import LINEARS, tensor_name
from slmc.quant.calibrated.moments import Moments
from slmc.quant.calibrated.probe import Probe
from slmc.quant.calibrated.spill import Spill, appearing
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import dequantize

POSITIONS, DRAWS = 8192, 4
"""About how many positions are looked at, and how many draws of v, where the curvature at every matrix is asked for
or what 8 bits would save: each draw is a run backwards through the whole model."""
FEW_POSITIONS, ONE_DRAW = 4096, 1
"""The same where embedding and head are all that is asked about."""
CHUNK = 64
"""Positions whose logits are in memory at once."""
LEAST_PROMPT = 0.1
"""Of a prompt's position beside an answer's: answers alone are too few to tell what a matrix reads."""
OUTPUT, GAIN, PROMPT = "output", "gain.", "prompt."


@dataclass(frozen=True)
class Survey:
    """Curvatures are symmetric float32 matrices, in nats a sequence but for a factor that all of a kind share."""

    folder: Path
    embedding: torch.Tensor
    """Of a change of the embedding's output [hidden, hidden]."""
    head: torch.Tensor
    """Of a change of a row of the head, mean over rows [hidden, hidden]."""
    changes: Mapping[str, torch.Tensor]
    """What 4 bits rather than 8 add to v·logits, by tensor: float32 [draws, sequences]. Empty if not asked for."""
    prompts: Mapping[str, torch.Tensor]
    """Mean squared gradient at a prompt's position over that at an answer's, by tensor, and by `output` of a layer."""
    tokens: int
    """Of answers, over all sequences."""

    def prompt_weight(self, layer: int, modules: Sequence[str]) -> float:
        """What an error at a prompt's position counts in these modules' outputs, where one at an answer's counts 1.

        At most 1: where more would count, prompts are the most of all positions anyway.
        """
        ratios = [float(self.prompts[tensor_name(layer, module)]) for module in modules]
        return min(max(sum(ratios) / len(ratios), LEAST_PROMPT), 1.0)

    def curvatures(self, layer: int) -> dict[str, torch.Tensor]:
        """At the outputs of a layer's matrices by module, and at its own, `output`; for `tuned` only."""
        return read_tensors(_layer_file(self.folder, layer))

    def gain(self, names: Sequence[str]) -> float:
        """Nats a token that 8 bits rather than 4 save for these tensors together."""
        total = sum(self.changes[name] for name in names)
        assert isinstance(total, torch.Tensor)
        return float(total.square().mean(0).sum()) / 2 / self.tokens


def survey(job: Job, *, gains: bool) -> Survey:
    """From the scratch folder where it is there. `gains` asks for what 8 bits rather than 4 would save."""
    folder, thorough = job.scratch / "survey", gains or job.tuned
    batches = _surveyed(job.batches, POSITIONS if thorough else FEW_POSITIONS)
    if not folder.exists():
        with appearing(folder) as partial, progress("survey", 2 * job.architecture.layers) as advance:
            _survey(job, batches, partial, advance, DRAWS if thorough else ONE_DRAW, gains)
    found = read_tensors(_head_file(folder))
    return Survey(
        folder=folder,
        embedding=found[EMBEDDING],
        head=found[HEAD],
        changes=_prefixed(found, GAIN),
        prompts=_prefixed(found, PROMPT),
        tokens=sum(int(batch.answers.sum()) for batch in batches),
    )


def _prefixed(found: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def _survey(job: Job, batches: Sequence[Batch], folder: Path, advance: Advance, draws: int, gains: bool) -> None:
    states = folder / "states"
    spills = [Spill(states / f"{layer:05}") for layer in range(job.architecture.layers + 1)]
    _forwards(job, batches, spills, advance)
    run = _Backwards(job, batches, draws, gains)
    run.start(spills[-1])
    for layer in reversed(range(job.architecture.layers)):
        run.through(layer, spills[layer], folder)
        advance(1)
    run.end(folder)
    shutil.rmtree(states)


def _surveyed(batches: Sequence[Batch], positions: int) -> Sequence[Batch]:
    """As many batches as make up about so many positions, evenly from the longest sequences to the shortest."""
    there = sum(int(batch.there.sum()) for batch in batches)
    count = min(len(batches), math.ceil(len(batches) * positions / there))
    return [batches[index * len(batches) // count] for index in range(count)]


@torch.no_grad()
def _forwards(job: Job, batches: Sequence[Batch], spills: Sequence[Spill], advance: Advance) -> None:
    """Leave what every layer reads, and what comes out of the last."""
    for index, batch in enumerate(batches):
        spills[0].put(index, hidden=embedded(job.reader, batch.ids))
    for layer in range(job.architecture.layers):
        module = job.model.load(layer)
        for index in range(len(batches)):
            spills[layer + 1].put(index, hidden=job.model.whole(module, spills[layer].get(index)["hidden"]))
        advance(1)


class _Backwards:
    """From the head to the embedding, with each batch's gradients of v·logits [draws, sequences, length, hidden]."""

    def __init__(self, job: Job, batches: Sequence[Batch], draws: int, gains: bool) -> None:
        self._job, self._batches, self._draws, self._gains = job, batches, draws, gains
        self._gradients: list[torch.Tensor] = []
        self._found: dict[str, torch.Tensor] = {}
        self._changes: dict[str, list[torch.Tensor]] = {}

    def start(self, last: Spill) -> None:
        """At the head."""
        job, name = self._job, EMBEDDING if self._job.architecture.tied else HEAD
        head = torch.from_numpy(job.reader.array(name))
        change = _change(head, job.schemes[name]) if self._gains and name in job.schemes else None
        norm, moments = job.model.final_norm(), Moments(job.architecture.hidden_size)
        generator = torch.Generator().manual_seed(job.seed)
        for index, batch in enumerate(self._batches):
            hidden = last.get(index)["hidden"].requires_grad_()
            asked = norm(hidden)[batch.answers]
            pulls = [_pull(asked.detach(), head, change, generator) for _ in range(self._draws)]
            moments.add(asked.detach(), pulls[0].doubt)
            self._gradients.append(_pulled_back(asked, hidden, [pull.gradient for pull in pulls]))
            if change is not None:
                moved = [_by_sequence(pull.moved, batch.answers) for pull in pulls]
                self._changes.setdefault(name, []).append(torch.stack(moved))
        self._found[HEAD] = moments.sum() / len(head)

    def through(self, layer: int, source: Spill, folder: Path) -> None:
        """From a layer's output to its input."""
        job, module = self._job, self._job.model.load(layer)
        changes = {
            name: _change(module.get_parameter(f"{name}.weight"), job.schemes[tensor_name(layer, name)])
            for name in LINEARS
            if self._gains and tensor_name(layer, name) in job.schemes
        }
        probe, seen = Probe(changes), {name: _Seen(job.tuned) for name in (OUTPUT, *LINEARS)}
        with probe.on(module):
            for index, batch in enumerate(self._batches):
                seen[OUTPUT].add(self._gradients[index], batch)
                hidden = source.get(index)["hidden"].requires_grad_()
                output = job.model.whole(module, hidden)
                self._gradients[index], moved, outputs = _drawn(output, hidden, probe, self._gradients[index])
                for name, gradients in outputs.items():
                    seen[name].add(gradients, batch)
                for name, added in moved.items():
                    self._changes.setdefault(tensor_name(layer, name), []).append(added)
        self._found |= {PROMPT + tensor_name(layer, name): one.prompt_weight() for name, one in seen.items()}
        if job.tuned:
            write_tensors(_layer_file(folder, layer), {name: one.moments() for name, one in seen.items()})

    def end(self, folder: Path) -> None:
        """At the embedding."""
        job, seen = self._job, _Seen(True)
        for gradients, batch in zip(self._gradients, self._batches, strict=True):
            seen.add(gradients, batch)
        self._found[EMBEDDING] = seen.moments() / self._draws
        if self._gains and EMBEDDING in job.schemes:
            embedding = [self._embedding(index) for index in range(len(self._batches))]
            before = self._changes.get(EMBEDDING, [torch.zeros(())] * len(embedding))
            self._changes[EMBEDDING] = [one + other for one, other in zip(embedding, before, strict=True)]
        gains = {GAIN + name: torch.cat(moved, dim=1) for name, moved in self._changes.items()}
        write_tensors(_head_file(folder), self._found | gains)

    def _embedding(self, index: int) -> torch.Tensor:
        """What the embedding's change adds to v·logits [draws, sequences]."""
        rows = embedded(self._job.reader, self._batches[index].ids)
        change = _change(rows.flatten(0, 1), self._job.schemes[EMBEDDING]).reshape(rows.shape)
        return (self._gradients[index] * change).sum((-1, -2))


class _Seen:
    """Gradients at one place of the model, over draws, sequences and positions."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._moments: Moments | None = None
        self._squares = {"prompt": 0.0, "answer": 0.0}
        self._counts = {"prompt": 0, "answer": 0}

    def add(self, gradients: torch.Tensor, batch: Batch) -> None:
        """float32 [draws, sequences, length, size]."""
        if self._whole:
            self._moments = self._moments or Moments(gradients.shape[-1])
            for drawn in gradients:
                self._moments.add(drawn, batch.there.float())
        squares = gradients.square().sum(-1).mean(0)
        for kind, where in (("prompt", batch.there & ~batch.answers), ("answer", batch.answers)):
            self._squares[kind] += float(squares[where].sum())
            self._counts[kind] += int(where.sum())

    def moments(self) -> torch.Tensor:
        """The sum of g gᵀ [size, size]."""
        assert self._moments is not None
        return self._moments.sum()

    def prompt_weight(self) -> torch.Tensor:
        """Mean square at a prompt's position over that at an answer's; 1 where neither is more than nothing."""
        mean = {kind: self._squares[kind] / max(count, 1) for kind, count in self._counts.items()}
        return torch.tensor(mean["prompt"] / mean["answer"] if mean["answer"] else 1.0)


def _drawn(
    output: torch.Tensor, hidden: torch.Tensor, probe: Probe, gradients: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of gradients at a layer's output: those at its input, at the probe's amounts, and at its modules' outputs.

    All with the draws first.
    """
    asked = [hidden, *probe.amounts.values(), *probe.outputs.values()]
    drawn = [torch.autograd.grad(output, asked, one, retain_graph=True) for one in gradients]
    first, *others = (torch.stack(values) for values in zip(*drawn, strict=True))
    moved, outputs = others[: len(probe.amounts)], others[len(probe.amounts) :]
    return first, dict(zip(probe.amounts, moved, strict=True)), dict(zip(probe.outputs, outputs, strict=True))


@dataclass(frozen=True)
class _Pull:
    gradient: torch.Tensor
    """Of v·logits at what the head reads: float32 [positions, hidden]."""
    doubt: torch.Tensor
    """How undecided p is, 1 - Σ p² [positions]."""
    moved: torch.Tensor
    """What a change of the head adds to v·logits [positions]."""


def _pull(read: torch.Tensor, head: torch.Tensor, change: torch.Tensor | None, generator: torch.Generator) -> _Pull:
    """A draw of v at each of the positions that the head reads, float32 [positions, hidden]."""
    gradient, doubt, moved = [], [], []
    for start in range(0, len(read), CHUNK):
        part = read[start : start + CHUNK]
        p = torch.softmax(part @ head.T, dim=-1)
        spread = p.sqrt() * torch.randn(p.shape, generator=generator)
        v = spread - p * spread.sum(-1, keepdim=True)
        gradient.append(v @ head)
        doubt.append(1 - p.square().sum(-1))
        moved.append(torch.zeros(len(part)) if change is None else ((v @ change) * part).sum(-1))
    return _Pull(torch.cat(gradient), torch.cat(doubt), torch.cat(moved))


def _pulled_back(asked: torch.Tensor, hidden: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Gradients of several draws at the last layer's output."""
    return torch.stack([torch.autograd.grad(asked, hidden, one, retain_graph=True)[0] for one in gradients])


def _by_sequence(values: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Sums over each sequence of values at its answer's positions."""
    spread = torch.zeros(answers.shape)
    spread[answers] = values
    return spread.sum(-1)


def _change(weights: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """What 4 bits rather than 8 do to weights float32 [rows, columns], rounded to nearest."""
    values = weights.detach().numpy()
    change = np.empty_like(values)
    for start, stop in row_blocks(values.shape):
        narrow, wide = (dequantize(*quantize_rows(values[start:stop], one)) for one in (scheme, scheme.wide))
        np.subtract(narrow, wide, out=change[start:stop])
    return torch.from_numpy(change)


def _head_file(folder: Path) -> Path:
    return folder / "head.safetensors"


def _layer_file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer:05}.safetensors"
