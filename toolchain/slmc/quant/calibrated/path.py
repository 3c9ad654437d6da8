"""A layer's way through the calibration batches: either with quantized weights, or as the model had them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slmc.quant.calibrated.layer import Carried, LayerModel, StageName
from slmc.quant.calibrated.spill import Spill


@dataclass(frozen=True)
class Path:
    model: LayerModel
    module: torch.nn.Module
    """The layer; its weights may change between stages."""
    hidden: Spill
    """What it reads, as `hidden` float32 [sequences, length, hidden size]."""
    carried: Spill
    """How far each batch has come in it."""

    def advance(self, stage: StageName, batch: int) -> torch.Tensor:
        """Bring a batch from the stage before to this one; what the stage's matrices read."""
        arrived = self.model.advance(self.module, stage, self._before(stage, batch))
        self.carried.put(batch, inputs=arrived.inputs, residual=arrived.residual)
        return arrived.inputs

    def rescale(self, batch: int, columns: torch.Tensor) -> None:
        """What the stage's matrices read, divided by these, as the norm before them now is."""
        carried = self.carried.get(batch)
        self.carried.put(batch, inputs=carried["inputs"] / columns, residual=carried["residual"])

    def _before(self, stage: StageName, batch: int) -> Carried:
        if stage == "qkv":
            hidden = self.hidden.get(batch)["hidden"]
            return Carried(hidden, hidden)
        return Carried(**self.carried.get(batch))

    def finish(self, batch: int) -> torch.Tensor:
        """The layer's output for a batch that has come to the last stage."""
        return self.model.finish(self.module, Carried(**self.carried.get(batch)))
