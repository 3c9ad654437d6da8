"""Vulkan, for Android's GPUs: ExecuTorch's own operators for attention, which its partitioner knows."""

from __future__ import annotations

from collections.abc import Iterator

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401 - registers operators
import numpy as np
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.backends.vulkan.serialization.vulkan_graph_schema import VkGraph, VkTensor
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    VulkanDelegateHeader,
    flatbuffer_to_vk_graph,
)
from executorch.exir.backend.partitioner import Partitioner

from slmc.backends.executorch.attention import Attention, CustomAttention
from slmc.backends.executorch.delegates import Stored
from slmc.backends.executorch.pte import PteFile
from slmc.backends.executorch.xnnpack.graph import unpack_codes
from slmc.quant.reader import QuantizedReader

FP16 = False


def attention(reader: QuantizedReader, context: int) -> Attention:
    return CustomAttention(reader.architecture, context, only_causal=True)


def partitioner() -> Partitioner:
    return VulkanPartitioner({"require_dynamic_shapes": True})


def stored(file: PteFile) -> Iterator[Stored]:
    named = file.named()
    for _, payload in file.payloads("forward"):
        graph = _graph(payload)
        for call in graph.chain:
            if call.name == "et_vk.embedding_q4gsw.default":
                yield _matrix(graph, named, call.args[0], call.args[1], turned=False)
            elif call.name == "et_vk.linear_q4gsw.default":
                yield _matrix(graph, named, call.args[1], call.args[2], turned=True)


def _matrix(graph: VkGraph, named: dict[str, bytes], codes: int, scales: int, *, turned: bool) -> Stored:
    """`turned`: the scales are stored with a group's of all rows side by side."""
    packed, found = _tensor(graph, codes), _tensor(graph, scales)
    content = named[graph.constants[packed.constant_id].named_key]
    values = np.frombuffer(named[graph.constants[found.constant_id].named_key], np.float32).reshape(found.dims)
    rows, columns = packed.dims[0], 2 * packed.dims[1]
    return Stored(unpack_codes(content, rows, columns), values.T if turned else values)


def _tensor(graph: VkGraph, id_: int) -> VkTensor:
    value = graph.values[id_].value
    assert isinstance(value, VkTensor)
    return value


def _graph(payload: bytes) -> VkGraph:
    header = VulkanDelegateHeader.from_bytes(payload[: VulkanDelegateHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    return flatbuffer_to_vk_graph(payload[start : start + header.flatbuffer_size])
