"""What a calibrated method is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc.architecture import Architecture
from slmc.checkpoint.reader import TensorReader
from slmc.names import Scheme
from slmc.quant.calibrated.batches import Batch
from slmc.quant.calibrated.layer import LayerModel


@dataclass(frozen=True)
class Job:
    reader: TensorReader
    architecture: Architecture
    model: LayerModel
    batches: Sequence[Batch]
    schemes: Mapping[str, Scheme]
    """Of the tensors to quantize, by name."""
    tuned: bool
    """Make good what the layers before have lost, let rows take up one another's errors, and learn by gradient."""
    prompt_weight: float
    """What an error at a prompt's position counts, where one at an answer's counts 1."""
    seed: int
    scratch: Path
    """Finished parts, and activations between layers; an interrupted run goes on from here."""
