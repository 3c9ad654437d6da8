"""Embedding and head, which are rounded before any layer: the layers can then make good what the embedding lost.

Rows of the embedding are hidden states, so GPTQ rounds them by what a change of the embedding's output does to
the answers; rows of the head by what the head reads; those of a tied matrix by the sum of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from slmc.architecture import EMBEDDING, HEAD
from slmc.quant.calibrated.gptq import gptq
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.moments import inverse_factor
from slmc.quant.calibrated.results import Matrix, Results
from slmc.quant.calibrated.survey import Survey

ROWS = 16384
"""Rounded at once: the float32 copies of a whole vocabulary are large."""


def ends_file(scratch: Path) -> Path:
    return scratch / "ends.safetensors"


def round_ends(job: Job, survey: Survey) -> Results:
    """Embedding and head, as far as they are to be quantized; from the scratch folder where they are there."""
    path, names = ends_file(job.scratch), [name for name in (EMBEDDING, HEAD) if name in job.schemes]
    if not path.exists():
        Results({name: _round(job, name, survey) for name in names}).save(path)
    return Results.load(path)


def _round(job: Job, name: str, survey: Survey) -> Matrix:
    curvature = survey.head if name == HEAD else survey.embedding
    if name == EMBEDDING and job.architecture.tied:
        curvature = survey.embedding / job.reader.shape(name)[0] + survey.head
    factor, scheme = inverse_factor(curvature), job.schemes[name]
    return Matrix.stacked([Matrix.of(gptq(block, factor, scheme)) for block in _blocks(job, name)])


def _blocks(job: Job, name: str) -> Iterator[torch.Tensor]:
    rows = job.reader.shape(name)[0]
    for start in range(0, rows, ROWS):
        yield torch.from_numpy(job.reader.rows(name, start, min(start + ROWS, rows)))
