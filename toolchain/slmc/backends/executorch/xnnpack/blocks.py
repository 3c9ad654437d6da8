"""A decoder's blocks as graphs for XNNPACK, with their constants.

`embedding_4bit` reads the halves of a byte the other way round than XNNPACK: from codes that `pack_codes` wrote it
gives rows with each pair of columns swapped, which the opening undoes. So a tied embedding is stored once, for that
operator and for the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slmc.backends.executorch.xnnpack.graph import Constants, Graph, Value, Weight, pack_weight
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.unmerged import Pair
from slmc.models.blocks import Blocks
from slmc.models.projections import Projection
from slmc.quant.reader import QuantizedReader


@dataclass(frozen=True)
class Block:
    """A graph as the delegate takes it, with the keys of its constants."""

    payload: bytes
    keys: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    """Shapes, with TOKENS where the number of tokens stands."""
    outputs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class XnnpackBlocks:
    """Builds the graphs of one checkpoint."""

    reader: QuantizedReader
    constants: Constants
    tokens: int
    """The most in one call."""
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    """Of an adapter that stays unmerged, by the linear's name."""

    def at(self, place: int) -> Block:
        """As `Blocks` counts places."""
        graph = _Operations(self)
        return finish(graph, Blocks[Value](self.reader, swapped=True).build(place, graph))

    def weight(self, matrix: Projection) -> Weight:
        return pack_weight(*matrix.read(self.reader), self.constants)


def finish(graph: Graph, outputs: list[Value]) -> Block:
    payload = graph.payload(outputs)
    return Block(payload, tuple(dict.fromkeys(graph.keys)), tuple(graph.inputs), tuple(out.shape for out in outputs))


class _Operations(Graph):
    """A graph that reads its matrices from the checkpoint."""

    def __init__(self, blocks: XnnpackBlocks) -> None:
        super().__init__(blocks.tokens, blocks.constants)
        self._blocks = blocks

    def linear(self, x: Value, matrix: Projection, bias: Float32 | None = None) -> Value:
        out = self.quantized_linear(x, self._blocks.weight(matrix), bias)
        pair = self._blocks.pairs.get(matrix.source)
        if pair is None:
            return out
        return self.add(out, self.plain_linear(self.plain_linear(x, pair.a), pair.b[matrix.start : matrix.stop]))
