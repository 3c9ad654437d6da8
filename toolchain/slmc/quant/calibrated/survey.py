"""What the answers depend on: how curved the task's loss is at embedding, head and the outputs of layers and matrices.

A small change e of a hidden state moves the distribution p of the next token by about ½ eᵀ F e nats of
Kullback-Leibler divergence, F = Jᵀ (diag p - p pᵀ) J being Fisher's information and J the derivative of
the logits. With u from a standard normal distribution, v = √p u - p (√p·u) has just that covariance,
diag p - p pᵀ, so gradients of v·logits have F for theirs: one run of the unquantized model forwards and
a few backwards, layer by layer, sample it at every position.

    survey/head.safetensors         curvature of head and embedding; what 4 bits rather than 8 add to v·logits
    survey/layer-00003.safetensors  curvature at the layer's output and at those of its matrices
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from slmc.architecture import EMBEDDING, HEAD
from slmc.console import Advance, progress
from slmc.quant.calibrated.backwards import Backwards
from slmc.quant.calibrated.batches import Batch
from slmc.quant.calibrated.embed import embedded
from slmc.quant.calibrated.files import read_tensors, write_tensors
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.spill import Spill, appearing

POSITIONS, DRAWS = 8192, 4
"""About how many positions are looked at, and how many draws of v, where the curvature at every matrix is asked for
or what 8 bits would save: each draw is a run backwards through the whole model."""
FEW_POSITIONS, ONE_DRAW = 4096, 1
"""The same where embedding and head are all that is asked about."""
GAIN = "gain."


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
    tokens: int
    """Of answers, over all sequences."""

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
        changes={name.removeprefix(GAIN): value for name, value in found.items() if name.startswith(GAIN)},
        tokens=sum(int(batch.answers.sum()) for batch in batches),
    )


def _survey(job: Job, batches: Sequence[Batch], folder: Path, advance: Advance, draws: int, gains: bool) -> None:
    states = folder / "states"
    spills = [Spill(states / f"{layer:05}") for layer in range(job.architecture.layers + 1)]
    _forwards(job, batches, spills, advance)
    run = Backwards(job, batches, draws, gains)
    run.start(spills[-1])
    for layer in reversed(range(job.architecture.layers)):
        curvatures = run.through(layer, spills[layer])
        if curvatures:
            write_tensors(_layer_file(folder, layer), curvatures)
        advance(1)
    run.end()
    changes = {GAIN + name: moved for name, moved in run.changes.items()}
    write_tensors(_head_file(folder), run.curvatures | changes)
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


def _head_file(folder: Path) -> Path:
    return folder / "head.safetensors"


def _layer_file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer:05}.safetensors"
