"""Delegates that take a whole program through their own partitioner; one module each, listed here.

Each has `decoder`, the model as the delegate can take it; `partitioner`; and `stored`, which reads a written program's
matrices and vectors back in their order of use, the embedding first.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from executorch.exir.backend.partitioner import Partitioner

from slmc.backends.executorch.aten import AtenBlock, Embedding
from slmc.backends.executorch.attention import Attention
from slmc.backends.executorch.decoder import Decoder, Ropes
from slmc.backends.executorch.pte import PteFile
from slmc.checkpoint.dtypes import Float32
from slmc.names import DelegateName
from slmc.quant.packing import Codes
from slmc.quant.reader import QuantizedReader


@dataclass(frozen=True)
class Stored:
    """A matrix of a written program: codes int8 [rows, columns], scales float32 [rows, columns / group]."""

    codes: Codes
    scales: Float32


class DelegateModule(Protocol):
    FP16: bool
    """It computes in fp16."""

    def attention(self, reader: QuantizedReader, context: int) -> Attention: ...

    def partitioner(self) -> Partitioner: ...

    def stored(self, file: PteFile) -> Iterator[Stored]: ...


def find(name: DelegateName) -> DelegateModule:
    return cast(DelegateModule, importlib.import_module(f"{__name__}.{name}"))


def decoder(module: DelegateModule, reader: QuantizedReader, context: int) -> Decoder:
    """As the delegate can take it."""
    a = reader.architecture
    blocks = [AtenBlock(reader, place, fp16=module.FP16) for place in range(a.layers + 2)]
    return Decoder(Embedding(reader), Ropes(a, context), module.attention(reader, context), blocks, every=False)
