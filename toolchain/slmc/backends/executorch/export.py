"""A quantized checkpoint into a .pte file for XNNPACK, as a program of its own.

torch and ExecuTorch are slow to load, write to standard error, and can die of a segmentation fault: `compile` starts
this and shows what it said where it failed. Prints a JSON line for each step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch import nn

from slmc.backends.executorch.child import tell
from slmc.backends.executorch.decoder import Decoder, Weights
from slmc.backends.executorch.delegated import Delegated
from slmc.backends.executorch.pte import PteFile, share_constants
from slmc.backends.executorch.xnnpack.blocks import Blocks
from slmc.backends.executorch.xnnpack.graph import Constants
from slmc.models.projections import Projection
from slmc.quant.reader import QuantizedReader

FULL_TOKENS = 64
"""The most that `full_logits` takes in one call: its answer has so many rows of the whole vocabulary."""


def export(reader: QuantizedReader, context: int, facts: Mapping[str, Any], out: Path) -> None:
    """Write the program, with methods `forward` and `full_logits` over the same weights and cache."""
    a, constants = reader.architecture, Constants()
    blocks, delegated = Blocks(reader, constants, context), Delegated(constants, context)
    made: list[nn.Module] = []
    for place in range(a.layers + 1):
        made.append(delegated(blocks.at(place)))
        tell(weights=a.weights // (a.layers + 1))
    weight = blocks.weight(Projection.head(a))
    shared = {key: constants.data[key] for key in (weight.codes_key, weight.scales_key)} if a.tied else {}
    head, weights = delegated(blocks.head(), elsewhere=shared), Weights(reader, context)
    programs = {
        name: _trace(Decoder(a, weights, made, head, every=every), tokens)
        for name, every, tokens in (("forward", False, context), ("full_logits", True, min(FULL_TOKENS, context)))
    }
    _write(programs, facts, shared, out)


def _write(
    programs: dict[str, torch.export.ExportedProgram], facts: Mapping[str, Any], shared: dict[str, bytes], out: Path
) -> None:
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    executable = to_edge(programs, compile_config=config, constant_methods=dict(facts)).to_executorch(
        ExecutorchBackendConfig(
            extract_delegate_segments=True,
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False, share_mutable_buffers=True),
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
        )
    )
    part = out.with_name(out.name + ".part") if shared else out
    with part.open("wb") as stream:
        executable.write_to_file(stream)
    if shared:
        share_constants(part, shared, out)
        part.unlink()


def _trace(decoder: Decoder, tokens: int) -> torch.export.ExportedProgram:
    count = torch.export.Dim("tokens", min=1, max=tokens)
    example = (torch.ones(1, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        return torch.export.export(decoder, example, dynamic_shapes=({1: count}, None), strict=False)


def main() -> None:
    folder, context, facts, out = sys.argv[1:]
    with QuantizedReader(Path(folder)) as reader:
        export(reader, int(context), json.loads(facts), Path(out))
    file = PteFile(Path(out))
    outside = dict(sorted(file.operators("forward").items()))
    tell(outside=outside, delegated=len(file.payloads("forward")))


if __name__ == "__main__":
    main()
