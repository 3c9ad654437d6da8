"""What a program's graphs multiply by, held against the quantized checkpoint, as a program of its own.

The matrices of each graph are found in the order of its products, through the keys that it reads them by, so a
matrix in another's place is seen as much as a changed bit. Then each goes through XNNPACK itself: a product with the
identity must give back its weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import ml_dtypes
import numpy as np
import torch
from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as xnnpack
from executorch.exir import EdgeCompileConfig, to_edge
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir._serialize._named_data_store import NamedDataStore
from executorch.exir._serialize._program import PTEFile, serialize_pte_binary
from executorch.exir.schema import Program
from executorch.extension.pybindings import portable_lib

from slmc.architecture import EMBEDDING
from slmc.backends.child import tell
from slmc.backends.executorch import delegates
from slmc.backends.executorch.delegates import Stored
from slmc.backends.executorch.pte import PteFile, read_data
from slmc.backends.executorch.xnnpack.blocks import finish
from slmc.backends.executorch.xnnpack.delegated import Delegated
from slmc.backends.executorch.xnnpack.graph import Constants, Graph, Weight, equal_row, pack_codes
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.unmerged import adapter_beside, read_pairs
from slmc.models.blocks import TOKENS
from slmc.models.decoder import decoder_parameters, rope_inputs
from slmc.models.exported import FOUNDATION
from slmc.models.projections import Projection, projections, stored_vector
from slmc.names import DelegateName
from slmc.quant.packing import Codes
from slmc.quant.reader import QuantizedReader

_ROWS = 256
"""Of the identity in one call."""
_TOLERANCE = 0.05
"""Steps of a code that XNNPACK's sum over a whole row may be off."""


def check(reader: QuantizedReader, path: Path, context: int) -> Iterator[tuple[str, bool]]:
    """Each matrix and vector in the order of use, then what lies outside the graphs."""
    file, through, foundation = PteFile(path), ThroughDelegate(), path.with_name(FOUNDATION.name)
    beside = read_data(foundation) if foundation.is_file() else {}
    named = file.named() | beside
    graphs = [_graph(payload) for _, payload in file.payloads("forward")]
    found, wanted = [one for graph in graphs for one in products(graph)], projections(reader.architecture)
    yield "number of matrices", len(found) == len(wanted)
    for projection, (codes_key, scales_key) in zip(wanted, found, strict=False):
        codes, scales = projection.read(reader)
        stored = named[codes_key], named[scales_key]
        same = stored == (pack_codes(codes), _narrow(scales))
        yield _name(projection), same and through.agrees(stored[0], stored[1], codes, scales)
    yield from _check_pairs(reader, [named[key] for graph in graphs for key in plain_products(graph)])
    yield from _check_vectors(reader, [named[key] for graph in graphs for key in vectors(graph)])
    a = reader.architecture
    outside = {
        EMBEDDING: pack_codes(reader.codes(EMBEDDING, 0, a.vocab_size)),
        f"{EMBEDDING} scales": _narrow(reader.scales(EMBEDDING, 0, a.vocab_size)),
        **{name: table.tobytes() for name, table in rope_inputs(a, context).items()},
    }
    for name, content in outside.items():
        yield name, content in beside.values() or file.constant(len(content), content) is not None


def check_stored(reader: QuantizedReader, stored: Iterable[Stored]) -> Iterator[tuple[str, bool]]:
    """Each matrix of a program of a partitioner's, which does not run here: its bytes alone."""
    a = reader.architecture
    wanted, found = [Projection(EMBEDDING, 0, a.vocab_size), *projections(a)], list(stored)
    yield "number of matrices", len(found) == len(wanted)
    for projection, one in zip(wanted, found, strict=False):
        codes, scales = projection.read(reader)
        same = np.array_equal(codes.ravel(), one.codes.ravel()) and np.array_equal(scales.ravel(), one.scales.ravel())
        yield _name(projection), same


def _check_pairs(reader: QuantizedReader, found: list[bytes]) -> Iterator[tuple[str, bool]]:
    """An unmerged adapter's matrices, in full precision."""
    adapter = adapter_beside(reader.folder)
    pairs = {} if adapter is None else read_pairs(adapter, reader.architecture)
    means = {equal_row(count).tobytes() for count in (reader.architecture.hidden_size, reader.architecture.head_dim)}
    products = [content for content in found if content not in means]
    wanted = [one for one in projections(reader.architecture) if one.source in pairs]
    yield "number of an adapter's matrices", len(products) == 2 * len(wanted)
    for i, one in enumerate(wanted[: len(products) // 2]):
        pair = pairs[one.source]
        same = products[2 * i : 2 * i + 2] == [pair.a.tobytes(), pair.b[one.start : one.stop].tobytes()]
        yield f"{_name(one)} adapter", same


def _check_vectors(reader: QuantizedReader, found: list[bytes]) -> Iterator[tuple[str, bool]]:
    parameters = (one for one in decoder_parameters(reader.architecture) if not one.is_matrix)
    wanted = [source for parameter in parameters for source in parameter.sources]
    yield "number of norms and biases", len(found) == len(wanted)
    for source, content in zip(wanted, found, strict=False):
        yield source.name, content == stored_vector(reader, source).tobytes()


def _narrow(scales: Float32) -> bytes:
    return scales.astype(ml_dtypes.bfloat16).tobytes()


def products(graph: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys of codes and scales of each quantized product in a graph, in order."""
    values = {_tensor(one)["id_out"]: one for one in graph["xvalues"]}
    found = []
    for node in graph["xnodes"]:
        if node["xnode_union_type"] != "XNNFullyConnected":
            continue
        value = values[node["xnode_union"]["filter_id"]]
        if value["xvalue_union_type"] != "XNNQuantizedTensorValue":
            continue  # a norm's mean, or an adapter's
        places = _tensor(value)["constant_buffer_idx"], value["xvalue_union"]["quant_params"]["scale_buffer_idx"]
        codes, scales = (graph["constant_data"][place]["named_key"] for place in places)
        found.append((codes, scales))
    return found


def plain_products(graph: dict[str, Any]) -> list[str]:
    """Keys of the matrices of each product in float32, in order."""
    values = {_tensor(one)["id_out"]: one for one in graph["xvalues"]}
    nodes = (node for node in graph["xnodes"] if node["xnode_union_type"] == "XNNFullyConnected")
    found = (values[node["xnode_union"]["filter_id"]] for node in nodes)
    plain = (_tensor(one) for one in found if one["xvalue_union_type"] != "XNNQuantizedTensorValue")
    return [graph["constant_data"][one["constant_buffer_idx"]]["named_key"] for one in plain]


def vectors(graph: dict[str, Any]) -> list[str]:
    """Keys of a graph's norms and biases, in order: its constants of one dimension but for single numbers."""
    tensors = [_tensor(one) for one in graph["xvalues"]]
    constant = [one for one in tensors if one["constant_buffer_idx"] and one["num_dims"] == 1 and one["dims"] != [1]]
    return [graph["constant_data"][one["constant_buffer_idx"]]["named_key"] for one in constant]


def _tensor(value: dict[str, Any]) -> dict[str, Any]:
    union: dict[str, Any] = value["xvalue_union"]
    found: dict[str, Any] = union.get("tensor_value", union)
    return found


def _graph(payload: bytes) -> dict[str, Any]:
    header = xnnpack.XNNHeader.from_bytes(payload[: xnnpack.XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(xnnpack._get_schema_bytes())
        (folder / "graph.bin").write_bytes(payload[start : start + header.flatbuffer_size])
        _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--raw-binary"])
        found: dict[str, Any] = json.loads((folder / "graph.json").read_text())
        return found


class ThroughDelegate:
    """Multiplies by a matrix in XNNPACK; a program for each shape, given other constants each time."""

    def __init__(self) -> None:
        self._programs: dict[tuple[int, int, int], tuple[Program, Weight]] = {}

    def agrees(self, packed: bytes, narrow: bytes, codes: Codes, scales: Float32) -> bool:
        (rows, columns), groups = codes.shape, scales.shape[1]
        program, weight = self._program(rows, columns, columns // groups)
        store = NamedDataStore()
        store.add_named_data(weight.codes_key, packed, xnnpack.CONSTANT_TENSOR_ALIGNMENT)
        store.add_named_data(weight.scales_key, narrow, xnnpack.CONSTANT_TENSOR_ALIGNMENT)
        pte = PTEFile(program, None, store.get_named_data_store_output())
        content = bytes(serialize_pte_binary(pte, extract_delegate_segments=True))
        module = portable_lib._load_for_executorch_from_buffer(content)
        steps = scales.repeat(columns // groups, axis=1)
        for first in range(0, columns, _ROWS):
            ones = torch.eye(columns)[first : first + _ROWS].unsqueeze(0)
            answer = module.forward((ones,))[0][0].numpy().T
            part = slice(first, first + _ROWS)
            if np.abs(answer / steps[:, part] - codes[:, part]).max() > _TOLERANCE:
                return False
        return True

    def _program(self, rows: int, columns: int, group: int) -> tuple[Program, Weight]:
        shape = rows, columns, group
        if shape not in self._programs:
            constants = Constants()
            weight = Weight(rows, columns, group, constants.add(b"codes"), constants.add(b"scales"))
            graph = Graph(_ROWS, constants)
            block = finish(graph, [graph.quantized_linear(graph.input(1, TOKENS, columns), weight)])
            delegated = Delegated(constants, _ROWS)(block, elsewhere=graph.keys)
            tokens = torch.export.Dim("tokens", min=1, max=_ROWS)
            example = (torch.zeros(1, 3, columns),)
            traced = torch.export.export(_One(delegated), example, dynamic_shapes=({1: tokens},), strict=False)
            edge = to_edge(traced, compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True))
            self._programs[shape] = edge.to_executorch().executorch_program, weight
        return self._programs[shape]


class _One(torch.nn.Module):
    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (out,) = self.block(x)
        return cast(torch.Tensor, out)


def _name(projection: Projection) -> str:
    return f"{projection.source} [{projection.start}:{projection.stop}]"


def main() -> None:
    folder, path, context, delegate = sys.argv[1:]
    with QuantizedReader(Path(folder)) as reader:
        if delegate == "xnnpack":
            found = check(reader, Path(path), int(context))
        else:
            found = check_stored(reader, delegates.find(cast(DelegateName, delegate)).stored(PteFile(Path(path))))
        for name, same in found:
            tell(name=name, same=same)


if __name__ == "__main__":
    main()
