"""A block that a delegate has compiled, as a module that a traced program calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import CONSTANT_TENSOR_ALIGNMENT
from executorch.exir._serialize._named_data_store import NamedDataStore
from executorch.exir.lowered_backend_module import LoweredBackendModule
from torch import Tensor, nn

from slmc.backends.executorch.xnnpack.blocks import Block
from slmc.backends.executorch.xnnpack.graph import Constants
from slmc.models.blocks import TOKENS

_EXAMPLE = 3
"""Tokens to trace with: neither 0 nor 1, which torch.export takes for constants."""


class Delegated:
    """Makes modules of blocks; blocks of the same shapes are traced once."""

    def __init__(self, constants: Constants, tokens: int, weights_file: str | None = None) -> None:
        """`weights_file` is where codes and scales go, if not into the program's own file."""
        self._constants, self._tokens, self._weights_file = constants, tokens, weights_file
        self._traced: dict[object, torch.export.ExportedProgram] = {}

    def __call__(self, block: Block, elsewhere: Collection[str] = ()) -> LoweredBackendModule:
        """`elsewhere` are keys of constants that the file gets in another way."""
        shapes = block.inputs, block.outputs
        if shapes not in self._traced:
            self._traced[shapes] = self._trace(*shapes)
        store = NamedDataStore()
        for key in block.keys:
            if key in elsewhere:
                continue
            tag = self._weights_file if key in self._constants.weights else None
            store.add_named_data(key, self._constants.data[key], CONSTANT_TENSOR_ALIGNMENT, external_tag=tag)
        constants = store.get_named_data_store_output()
        return LoweredBackendModule(self._traced[shapes], "XnnpackBackend", block.payload, [], constants)

    def _trace(self, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> torch.export.ExportedProgram:
        tokens = torch.export.Dim("tokens", min=1, max=self._tokens)
        example = tuple(torch.zeros([_EXAMPLE if extent == TOKENS else extent for extent in one]) for one in inputs)
        dynamic = tuple({i: tokens for i, extent in enumerate(one) if extent == TOKENS} for one in inputs)
        return torch.export.export(_Shapes(outputs), example, dynamic_shapes=(dynamic,), strict=False)


class _Shapes(nn.Module):
    """Stands for a block while a program around it is traced: its outputs' shapes are all that is asked of it."""

    def __init__(self, outputs: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        count = inputs[0].shape[1]
        return [inputs[0].new_empty([count if extent == TOKENS else extent for extent in one]) for one in self._outputs]
