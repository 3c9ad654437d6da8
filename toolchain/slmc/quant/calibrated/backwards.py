"""The unquantized model run backwards, from the head to the embedding, one layer in memory at a time: see `survey`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from slmc.architecture import EMBEDDING, HEAD
from slmc.checkpoint.reader import row_blocks
from slmc.names import Scheme
from slmc.quant.calibrated.batches import Batch
from slmc.quant.calibrated.embed import embedded
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.layer import LINEARS, tensor_name
from slmc.quant.calibrated.moments import Moments
from slmc.quant.calibrated.probe import Probe
from slmc.quant.calibrated.pull import by_sequence, pull, pulled_back
from slmc.quant.calibrated.spill import Spill
from slmc.quant.rtn import quantize_rows
from slmc.quant.schemes import dequantize

OUTPUT = "output"
"""Of a layer, among its modules' names."""


class Backwards:
    """From the head to the embedding, with each batch's gradients of v·logits [draws, sequences, length, hidden]."""

    def __init__(self, job: Job, batches: Sequence[Batch], draws: int, gains: bool) -> None:
        self._job, self._batches, self._draws, self._gains = job, batches, draws, gains
        self._gradients: list[torch.Tensor] = []
        self._moved: dict[str, list[torch.Tensor]] = {}
        self.curvatures: dict[str, torch.Tensor] = {}
        """Of head and embedding."""

    @property
    def changes(self) -> dict[str, torch.Tensor]:
        """What 4 bits rather than 8 add to v·logits, by tensor: float32 [draws, sequences]."""
        return {name: torch.cat(moved, dim=1) for name, moved in self._moved.items()}

    def start(self, last: Spill) -> None:
        """At the head."""
        job, name = self._job, EMBEDDING if self._job.architecture.tied else HEAD
        head = torch.from_numpy(job.reader.array(name))
        change = _change(head, job.schemes[name]) if self._gains and name in job.schemes else None
        norm, moments, doubts = job.model.final_norm(), Moments(job.architecture.hidden_size), []
        generator = torch.Generator().manual_seed(job.seed)
        for index, batch in enumerate(self._batches):
            hidden = last.get(index)["hidden"].requires_grad_()
            asked = norm(hidden)[batch.answers]
            pulls = [pull(asked.detach(), head, change, generator) for _ in range(self._draws)]
            doubts.append(pulls[0].doubt)
            # By its root: else the few positions where the model wavers would be all that is seen.
            moments.add(asked.detach(), pulls[0].doubt.sqrt())
            self._gradients.append(pulled_back(asked, hidden, [one.gradient for one in pulls]))
            if change is not None:
                moved = [by_sequence(one.moved, batch.answers) for one in pulls]
                self._moved.setdefault(name, []).append(torch.stack(moved))
        doubt = torch.cat(doubts)
        self.curvatures[HEAD] = moments.sum() * (doubt.sum() / doubt.sqrt().sum().clamp(min=1e-30) / len(head))

    def through(self, layer: int, source: Spill) -> dict[str, torch.Tensor]:
        """From a layer's output to its input. For `tuned` the curvatures at its output and its modules', by name."""
        job, module = self._job, self._job.model.load(layer)
        changes = {
            name: _change(module.get_parameter(f"{name}.weight"), job.schemes[tensor_name(layer, name)])
            for name in LINEARS
            if self._gains and tensor_name(layer, name) in job.schemes
        }
        probe, outputs = Probe(changes), dict[str, Moments]()
        with probe.on(module):
            for index, batch in enumerate(self._batches):
                hidden = source.get(index)["hidden"].requires_grad_()
                output = job.model.whole(module, hidden)
                if job.tuned:
                    probe.outputs[OUTPUT] = output
                found = _drawn(output, hidden, probe, self._gradients[index], outputs=job.tuned)
                self._gradients[index], moved, gradients = found
                for name, drawn in gradients.items():
                    _add(outputs.setdefault(name, Moments(drawn.shape[-1])), drawn, batch)
                for name, added in moved.items():
                    self._moved.setdefault(tensor_name(layer, name), []).append(added)
        return {name: moments.sum() for name, moments in outputs.items()}

    def end(self) -> None:
        """At the embedding."""
        job, moments = self._job, Moments(self._job.architecture.hidden_size)
        for gradients, batch in zip(self._gradients, self._batches, strict=True):
            _add(moments, gradients, batch)
        self.curvatures[EMBEDDING] = moments.sum() / self._draws
        if self._gains and EMBEDDING in job.schemes:
            embedding = [self._embedding(index) for index in range(len(self._batches))]
            before = self._moved.get(EMBEDDING, [torch.zeros(())] * len(embedding))
            self._moved[EMBEDDING] = [one + other for one, other in zip(embedding, before, strict=True)]

    def _embedding(self, index: int) -> torch.Tensor:
        """What the embedding's change adds to v·logits [draws, sequences]."""
        rows = embedded(self._job.reader, self._batches[index].ids)
        change = _change(rows.flatten(0, 1), self._job.schemes[EMBEDDING]).reshape(rows.shape)
        return (self._gradients[index] * change).sum((-1, -2))


def _add(moments: Moments, gradients: torch.Tensor, batch: Batch) -> None:
    """Gradients float32 [draws, sequences, length, size]."""
    for drawn in gradients:
        moments.add(drawn, batch.there.float())


def _drawn(
    output: torch.Tensor, hidden: torch.Tensor, probe: Probe, gradients: torch.Tensor, *, outputs: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of gradients at a layer's output: those at its input, at the probe's amounts, and at what it saw put out.

    All with the draws first; the last only where `outputs` are asked for.
    """
    places = probe.outputs if outputs else {}
    asked = [hidden, *probe.amounts.values(), *places.values()]
    drawn = [torch.autograd.grad(output, asked, one, retain_graph=True) for one in gradients]
    first, *others = (torch.stack(values) for values in zip(*drawn, strict=True))
    moved, seen = others[: len(probe.amounts)], others[len(probe.amounts) :]
    return first, dict(zip(probe.amounts, moved, strict=True)), dict(zip(places, seen, strict=True))


def _change(weights: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """What 4 bits rather than 8 do to weights float32 [rows, columns], rounded to nearest."""
    values = weights.detach().numpy()
    change = np.empty_like(values)
    for start, stop in row_blocks(values.shape):
        narrow, wide = (dequantize(*quantize_rows(values[start:stop], one)) for one in (scheme, scheme.wide))
        np.subtract(narrow, wide, out=change[start:stop])
    return torch.from_numpy(change)
