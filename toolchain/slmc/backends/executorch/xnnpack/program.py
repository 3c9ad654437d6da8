"""A program whose blocks are graphs for XNNPACK, composed without a partitioner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executorch.exir import EdgeCompileConfig, to_edge
from torch import fx, nn

from slmc.backends.child import tell
from slmc.backends.executorch.attention import CustomAttention
from slmc.backends.executorch.decoder import Decoder, Ropes
from slmc.backends.executorch.program import trace, write
from slmc.backends.executorch.pte import share_constants
from slmc.backends.executorch.xnnpack.blocks import XnnpackBlocks
from slmc.backends.executorch.xnnpack.delegated import Delegated
from slmc.backends.executorch.xnnpack.embedding import PackedEmbedding
from slmc.backends.executorch.xnnpack.graph import Constants
from slmc.checkpoint.unmerged import adapter_beside, read_pairs
from slmc.models.exported import FOUNDATION
from slmc.models.projections import Projection
from slmc.quant.reader import QuantizedReader

FULL_TOKENS = 64
"""The most that `full_logits` takes in one call: its answer has so many rows of the whole vocabulary."""


def export(reader: QuantizedReader, context: int, facts: Mapping[str, Any], out: Path) -> None:
    """Write the program, with methods `forward` and `full_logits` over the same weights and cache.

    Of a checkpoint with an adapter beside it, the weights that it shares with others go into a file of their own, and
    the program has the adapter's.
    """
    a, constants, adapter = reader.architecture, Constants(), adapter_beside(reader.folder)
    blocks = XnnpackBlocks(reader, constants, context, {} if adapter is None else read_pairs(adapter, a))
    delegated = Delegated(constants, context, None if adapter is None else FOUNDATION.stem)
    weight = blocks.weight(Projection.head(a))
    sharing = a.tied and adapter is None  # a file of data alone has equal bytes once of itself
    shared = {key: constants.data[key] for key in (weight.codes_key, weight.scales_key)} if sharing else {}
    made: list[nn.Module] = []
    for place in range(a.layers + 2):
        made.append(delegated(blocks.at(place), elsewhere=shared))
        tell(weights=a.weights // (a.layers + 2))
    parts = PackedEmbedding(reader), Ropes(a, context), CustomAttention(a, context), made
    programs = {
        name: trace(Decoder(*parts, every=every), tokens)
        for name, every, tokens in (("forward", False, context), ("full_logits", True, min(FULL_TOKENS, context)))
    }
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    edge = to_edge(programs, compile_config=config, constant_methods=dict(facts))
    part = out.with_name(out.name + ".part") if shared else out
    write(edge, part, None if adapter is None else _in_foundation)
    if shared:
        share_constants(part, shared, out)
        part.unlink()


def _in_foundation(node: fx.Node) -> str | None:
    return FOUNDATION.stem if "embedding" in node.name else None
