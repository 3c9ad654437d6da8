"""Tracing a decoder, and writing what came of it as a .pte file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from executorch.exir import EdgeProgramManager, ExecutorchBackendConfig
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass

from slmc.backends.executorch.decoder import Decoder

_EXAMPLE = 3
"""Tokens to trace any number with: neither 0 nor 1, which torch.export takes for constants."""


def trace(decoder: Decoder, tokens: int) -> torch.export.ExportedProgram:
    """For any number of tokens up to so many, or for one."""
    shapes = None if tokens == 1 else ({1: torch.export.Dim("tokens", min=1, max=tokens)}, None)
    example = (torch.ones(1, min(tokens, _EXAMPLE), dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        return torch.export.export(decoder, example, dynamic_shapes=shapes, strict=False)


def write(edge: EdgeProgramManager, out: Path, external: Callable[[torch.fx.Node], str | None] | None = None) -> None:
    """`external` names the file of a constant that is not to be in the program's own, without its suffix."""
    executable = edge.to_executorch(
        ExecutorchBackendConfig(
            extract_delegate_segments=True,
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False, share_mutable_buffers=True),
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
            external_constants=external or False,
        )
    )
    with out.open("wb") as stream:
        executable.write_to_file(stream)
    if external is not None:
        executable.write_tensor_data_to_file(str(out.parent))
