"""Quantize a decoder layer by layer, each on the activations that the layers before it give once quantized.

    scratch/ends.safetensors          codes and scales of embedding and head
    scratch/layer-00003.safetensors   those of a layer's matrices
    scratch/hidden-00004/             what the next layer reads, a file a batch

A file or folder appears when it is complete, so an interrupted run goes on after the last finished layer.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path as Folder

import torch

from slmc.names import Scheme
from slmc.quant.calibrated.block import Lesson, learn, metric
from slmc.quant.calibrated.embed import embedded
from slmc.quant.calibrated.gptq import Rounded, gptq
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.layer import STAGES, StageName, tensor_name
from slmc.quant.calibrated.moments import Moments, inverse_factor
from slmc.quant.calibrated.path import Path
from slmc.quant.calibrated.results import Matrix, save_matrices
from slmc.quant.calibrated.spill import Spill, appearing
from slmc.quant.calibrated.survey import Survey


def quantize_layers(job: Job, embedding: Matrix | None, found: Survey) -> None:
    """Leave every layer's codes in the scratch folder; `embedding` is the quantized one, None where it is kept."""
    layers = range(job.architecture.layers)
    first = next((layer for layer in layers if not layer_file(job.scratch, layer).exists()), len(layers))
    if first == 0:
        with appearing(_hidden(job, 0)) as folder:
            for index, batch in enumerate(job.batches):
                unquantized = embedded(job, batch.ids)
                ours = unquantized if embedding is None else embedding.rows(batch.ids)
                Spill(folder / "ours").put(index, hidden=ours)
                if job.learning:
                    Spill(folder / "theirs").put(index, hidden=unquantized)
    for layer in layers:
        if layer >= first:
            quantize_layer(job, layer, found)
        named = (spec for spec in job.architecture.tensors() if spec.layer == layer)
        job.advance(sum(spec.size for spec in named if spec.name in job.schemes))


def layer_file(scratch: Folder, layer: int) -> Folder:
    return scratch / f"layer-{layer:05}.safetensors"


def quantize_layer(job: Job, layer: int, found: Survey) -> None:
    """Read its hidden states, leave the next layer's, then its codes."""
    module, source = job.model.load(layer), _hidden(job, layer)
    with appearing(_hidden(job, layer + 1)) as target:
        ours = Path(job.model, module, Spill(source / "ours"), Spill(job.scratch / "carried" / "ours"))
        theirs = None
        if job.learning:
            kept = copy.deepcopy(module)
            theirs = Path(job.model, kept, Spill(source / "theirs"), Spill(job.scratch / "carried" / "theirs"))
        named = {name: job.schemes.get(tensor_name(layer, name)) for names in STAGES.values() for name in names}
        schemes = {name: scheme for name, scheme in named.items() if scheme is not None}
        rounded = _round_in_stages(job, ours, theirs, schemes)
        if theirs is not None:
            _write(job, theirs, Spill(target / "theirs"))
            rounded = _learn(job, ours, Spill(target / "theirs"), found.outputs[layer], rounded, schemes)
        _write(job, ours, Spill(target / "ours"))
    matrices = {tensor_name(layer, name): Matrix.of(one) for name, one in rounded.items()}
    save_matrices(layer_file(job.scratch, layer), matrices)
    shutil.rmtree(source)


def _hidden(job: Job, layer: int) -> Folder:
    return job.scratch / f"hidden-{layer:05}"


@torch.no_grad()
def _write(job: Job, path: Path, target: Spill) -> None:
    for index in range(len(job.batches)):
        target.put(index, hidden=path.finish(index))


@torch.no_grad()
def _round_in_stages(job: Job, ours: Path, theirs: Path | None, schemes: Mapping[str, Scheme]) -> dict[str, Rounded]:
    """GPTQ for each stage's matrices on what the stages before give, quantized already."""
    rounded: dict[str, Rounded] = {}
    for stage, names in STAGES.items():
        moments = _moments(job, stage, ours, theirs)
        factor = inverse_factor(moments.sum())
        for name in names:
            if name in schemes:
                weights = ours.module.get_parameter(f"{name}.weight")
                aim = weights if theirs is None else moments.shifted(weights)
                rounded[name] = gptq(aim, factor, schemes[name])
                weights.copy_(rounded[name].weights())
    return rounded


def _moments(job: Job, stage: StageName, ours: Path, theirs: Path | None) -> Moments:
    """Bring every batch to a stage, and look at what its matrices read there."""
    moments: Moments | None = None
    for index, batch in enumerate(job.batches):
        inputs = ours.advance(stage, index)
        unquantized = None if theirs is None else theirs.advance(stage, index)
        moments = moments or Moments(inputs.shape[-1], cross=theirs is not None)
        moments.add(inputs, batch.weights, unquantized)
    assert moments is not None
    return moments


def _learn(
    job: Job,
    ours: Path,
    wanted: Spill,
    curvature: torch.Tensor,
    rounded: Mapping[str, Rounded],
    schemes: Mapping[str, Scheme],
) -> dict[str, Rounded]:
    """Better roundings than GPTQ's, and every batch brought to the last stage with them."""
    counted = metric(curvature)
    lessons = [Lesson(batch, index, ours.hidden, wanted, counted) for index, batch in enumerate(job.batches)]
    learnt = learn(job.model, ours.module, rounded, schemes, lessons, job.seed)
    for name, one in learnt.items():
        ours.module.get_parameter(f"{name}.weight").copy_(one.weights())
    with torch.no_grad():
        for stage in STAGES:
            for index in range(len(job.batches)):
                ours.advance(stage, index)
    return learnt
