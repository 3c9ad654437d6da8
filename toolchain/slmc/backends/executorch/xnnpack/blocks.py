"""A decoder's blocks as graphs for XNNPACK, with their constants.

`embedding_4bit` reads the halves of a byte the other way round than XNNPACK: from codes that `pack_codes` wrote it
gives rows with each pair of columns swapped, which the opening undoes. So a tied embedding is stored once, for that
operator and for the head.
"""

from __future__ import annotations

from dataclasses import dataclass

from slmc.backends.executorch.blocks import Blocks
from slmc.backends.executorch.xnnpack.graph import Constants, Graph, Value, Weight, pack_weight
from slmc.checkpoint.dtypes import Float32
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

    def at(self, place: int) -> Block:
        """As `Blocks` counts places."""
        graph = _Operations(self.tokens, self.constants, self.reader)
        return finish(graph, Blocks[Value](self.reader, swapped=True).build(place, graph))

    def weight(self, matrix: Projection) -> Weight:
        return pack_weight(*matrix.read(self.reader), self.constants)


def finish(graph: Graph, outputs: list[Value]) -> Block:
    payload = graph.payload(outputs)
    return Block(payload, tuple(dict.fromkeys(graph.keys)), tuple(graph.inputs), tuple(out.shape for out in outputs))


class _Operations(Graph):
    """A graph that reads its matrices from the checkpoint."""

    def __init__(self, tokens: int, constants: Constants, reader: QuantizedReader) -> None:
        super().__init__(tokens, constants)
        self._reader = reader

    def linear(self, x: Value, matrix: Projection, bias: Float32 | None = None) -> Value:
        return self.quantized_linear(x, pack_weight(*matrix.read(self._reader), self._constants), bias)
