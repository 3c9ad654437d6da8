"""Quantize a decoder layer by layer, each on the activations that the layers before it give once quantized.

    scratch/ends.safetensors          codes and scales of embedding and head
    scratch/layer-00003.safetensors   those of a layer's matrices, and its folded norms
    scratch/hidden-00004/             what the next layer reads, a file a batch

A file or folder appears when it is complete, so an interrupted run goes on after the last finished layer.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path as Folder

import torch

from slmc.console import progress
from slmc.names import Scheme
from slmc.quant.calibrated.backwards import OUTPUT
from slmc.quant.calibrated.embed import embedded
from slmc.quant.calibrated.fold import column_scales
from slmc.quant.calibrated.gptq import Rounded, gptq, two_sided
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.layer import NORMS, STAGES, StageName, tensor_name
from slmc.quant.calibrated.learn import Lesson, learn
from slmc.quant.calibrated.moments import Moments, inverse_factor, metric
from slmc.quant.calibrated.path import Path
from slmc.quant.calibrated.results import Matrix, Results
from slmc.quant.calibrated.spill import Spill, appearing
from slmc.quant.calibrated.survey import Survey


def quantize_layers(job: Job, embedding: Matrix | None, survey: Survey) -> None:
    """Leave every layer's codes in the scratch folder; `embedding` is the quantized one, None where it is kept."""
    layers = job.architecture.layers
    first = next((layer for layer in range(layers) if not layer_file(job.scratch, layer).exists()), layers)
    with progress("layers", layers) as advance:
        advance(first)
        if first == 0:
            _embed(job, embedding)
        for layer in range(first, layers):
            _quantize_layer(job, layer, survey)
            advance(1)


def layer_file(scratch: Folder, layer: int) -> Folder:
    return scratch / f"layer-{layer:05}.safetensors"


def _embed(job: Job, embedding: Matrix | None) -> None:
    """Leave what the first layer reads."""
    with appearing(_hidden(job, 0)) as folder:
        for index, batch in enumerate(job.batches):
            unquantized = embedded(job.reader, batch.ids)
            Spill(folder / "ours").put(index, hidden=unquantized if embedding is None else embedding.rows(batch.ids))
            if job.tuned:
                Spill(folder / "theirs").put(index, hidden=unquantized)


def _quantize_layer(job: Job, layer: int, survey: Survey) -> None:
    """Read its hidden states, leave the next layer's, then its codes."""
    source = _hidden(job, layer)
    with appearing(_hidden(job, layer + 1)) as target:
        found = _Layer(job, layer, source, survey).quantize(target)
    found.save(layer_file(job.scratch, layer))
    shutil.rmtree(source)


def _hidden(job: Job, layer: int) -> Folder:
    return job.scratch / f"hidden-{layer:05}"


class _Layer:
    """One layer's matrices, stage by stage."""

    def __init__(self, job: Job, layer: int, source: Folder, survey: Survey) -> None:
        self._job, self._layer = job, layer
        module = job.model.load(layer)
        self._ours = Path(job.model, module, Spill(source / "ours"), Spill(job.scratch / "carried" / "ours"))
        self._theirs: Path | None = None
        self._metrics: Mapping[str, torch.Tensor] = {}
        if job.tuned:
            kept, carried = copy.deepcopy(module), Spill(job.scratch / "carried" / "theirs")
            self._theirs = Path(job.model, kept, Spill(source / "theirs"), carried)
            self._metrics = survey.curvatures(layer)
        self._rounded: dict[str, Rounded] = {}
        self._norms: dict[str, torch.Tensor] = {}

    def quantize(self, target: Folder) -> Results:
        """Leave what the next layer reads in `target`."""
        for stage in STAGES:
            self._round(stage)
        if self._theirs is not None:
            self._write(self._theirs, Spill(target / "theirs"))
            self._learn(Spill(target / "theirs"))
        self._write(self._ours, Spill(target / "ours"))
        return Results(
            {tensor_name(self._layer, name): Matrix.of(one) for name, one in self._rounded.items()},
            {tensor_name(self._layer, name): norm for name, norm in self._norms.items()},
        )

    @torch.no_grad()
    def _round(self, stage: StageName) -> None:
        """The stage's matrices, on what the stages before give, quantized already."""
        schemes, moments = self._schemes(STAGES[stage]), self._moments(stage)
        if stage in NORMS and len(schemes) == len(STAGES[stage]):
            self._fold(stage, moments, schemes)
        factor = inverse_factor(moments.sum())
        for name, scheme in schemes.items():
            weights = self._weights(name)
            if self._theirs is None:
                rounded = gptq(weights, factor, scheme)
            else:
                rounded = two_sided(moments.shifted(weights), factor, scheme, metric(self._metrics[name]))
            self._rounded[name] = rounded
            weights.copy_(rounded.weights())

    def _schemes(self, names: tuple[str, ...]) -> dict[str, Scheme]:
        """Of those that are to be quantized."""
        named = ((name, self._job.schemes.get(tensor_name(self._layer, name))) for name in names)
        return {name: scheme for name, scheme in named if scheme is not None}

    def _weights(self, name: str) -> torch.Tensor:
        return self._ours.module.get_parameter(f"{name}.weight")

    def _moments(self, stage: StageName) -> Moments:
        """Bring every batch to a stage, and look at what its matrices read there."""
        moments: Moments | None = None
        for index, batch in enumerate(self._job.batches):
            inputs = self._ours.advance(stage, index)
            unquantized = None if self._theirs is None else self._theirs.advance(stage, index)
            moments = moments or Moments(inputs.shape[-1], cross=self._theirs is not None)
            moments.add(inputs, batch.weights(self._job.prompt_weight), unquantized)
        assert moments is not None
        return moments

    def _fold(self, stage: StageName, moments: Moments, schemes: Mapping[str, Scheme]) -> None:
        """Move scales of columns into the norm before them, where rounding is then better."""
        matrices = [(self._weights(name), scheme) for name, scheme in schemes.items()]
        columns = column_scales(moments.sum(), matrices)
        if columns is None:
            return
        moments.rescale(columns)
        for weights, _ in matrices:
            weights.mul_(columns)
        self._norms[NORMS[stage]] = self._weights(NORMS[stage]).div_(columns)
        for index in range(len(self._job.batches)):
            self._ours.rescale(index, columns)

    def _learn(self, wanted: Spill) -> None:
        """Better roundings, and every batch brought to the last stage with them."""
        if not self._rounded:
            return
        job, ours = self._job, self._ours
        lessons, counted, first = [], metric(self._metrics[OUTPUT]), 0
        for index, batch in enumerate(job.batches):
            lessons.append(Lesson(batch.weights(job.prompt_weight), first, index, ours.hidden, wanted, counted))
            first += len(batch.ids)
        schemes = self._schemes(tuple(self._rounded))
        learnt = learn(job.model, ours.module, self._rounded, schemes, lessons, job.seed)
        if all(learnt[name] is one for name, one in self._rounded.items()):
            return
        self._rounded = learnt
        with torch.no_grad():
            for name, one in learnt.items():
                self._weights(name).copy_(one.weights())
            for stage in STAGES:
                for index in range(len(job.batches)):
                    ours.advance(stage, index)

    @torch.no_grad()
    def _write(self, path: Path, target: Spill) -> None:
        for index in range(len(self._job.batches)):
            target.put(index, hidden=path.finish(index))
