"""One decoder layer in transformers' own code, its weights read from a checkpoint when it is its turn.

A layer is computed in four stages, each up to the input of some of its matrices, so that a method can
quantize those before anything behind them is computed:

    qkv       the normed hidden state          into q_proj, k_proj, v_proj
    o         attention's output               into o_proj
    gate_up   the normed sum with the residual into gate_proj, up_proj
    down      the gated product                into down_proj
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from slmc.architecture import CALIBRATED, Architecture
from slmc.checkpoint.reader import TensorReader

if TYPE_CHECKING:
    from transformers import PretrainedConfig

StageName = Literal["qkv", "o", "gate_up", "down"]
STAGES: Mapping[StageName, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Modules that read the same input, in the order in which a layer uses them."""
LINEARS = tuple(name for names in STAGES.values() for name in names)
NORMS: Mapping[StageName, str] = {"qkv": "input_layernorm", "gate_up": "post_attention_layernorm"}
"""The norm whose output a stage's modules read, and nothing else."""


def tensor_name(layer: int, module: str) -> str:
    return f"model.layers.{layer}.{module}.weight"


class _Reached(Exception):
    """The module whose input was wanted has been reached; nothing behind it need be computed."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class Carried:
    """What a batch has at a stage: the stage's input, and the residual stream that its output is added to."""

    inputs: torch.Tensor
    residual: torch.Tensor


class LayerModel:
    """Makes decoder layers of one checkpoint, and runs them on batches."""

    def __init__(self, reader: TensorReader, architecture: Architecture, config: PretrainedConfig) -> None:
        from transformers import AutoModelForCausalLM

        assert architecture.family in CALIBRATED, "the plan was checked"
        self._reader = reader
        self._architecture = architecture
        single = _single_layer(config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(single, dtype=torch.float32)
        self._template: torch.nn.Module = model.model.layers[0]
        self._norm: torch.nn.Module = model.model.norm
        self._rotary = type(model.model.rotary_emb)(config=single)

    def load(self, layer: int) -> torch.nn.Module:
        """The layer's module with the checkpoint's weights as float32, without gradients."""
        module = copy.deepcopy(self._template).to_empty(device="cpu").eval().requires_grad_(False)
        prefix = f"model.layers.{layer}."
        parameters = dict(module.named_parameters())
        for spec in self._architecture.tensors():
            if spec.layer == layer:
                weights = self._reader.array(spec.name)
                parameters.pop(spec.name.removeprefix(prefix)).data.copy_(torch.from_numpy(weights))
        assert not parameters, f"parameters without a tensor: {sorted(parameters)}"
        return module

    def final_norm(self) -> torch.nn.Module:
        """What the head reads is its output."""
        norm = copy.deepcopy(self._norm).to_empty(device="cpu").requires_grad_(False)
        norm.get_parameter("weight").data.copy_(torch.from_numpy(self._reader.array("model.norm.weight")))
        return norm

    def advance(self, layer: torch.nn.Module, stage: StageName, before: Carried) -> Carried:
        """To a stage from the one before it, with the weights of now; to the first from hidden states."""
        if stage == "qkv":
            return Carried(layer.get_submodule("input_layernorm")(before.inputs), before.residual)
        if stage == "o":
            return Carried(self._attention(layer, before.inputs), before.residual)
        if stage == "gate_up":
            residual = before.residual + layer.get_submodule("self_attn.o_proj")(before.inputs)
            return Carried(layer.get_submodule("post_attention_layernorm")(residual), residual)
        mlp = layer.get_submodule("mlp")
        return Carried(_input_of(mlp.get_submodule("down_proj"), mlp, before.inputs), before.residual)

    def finish(self, layer: torch.nn.Module, last: Carried) -> torch.Tensor:
        """The layer's output, from its last stage."""
        hidden: torch.Tensor = last.residual + layer.get_submodule("mlp.down_proj")(last.inputs)
        return hidden

    def whole(
        self, layer: torch.nn.Module, hidden: torch.Tensor, weights: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The layer's output, with other weights in place of its own where given."""
        arguments = {"attention_mask": None, "position_embeddings": self._positions(hidden)}
        found = torch.func.functional_call(layer, dict(weights or {}), (hidden,), arguments)
        return found if isinstance(found, torch.Tensor) else found[0]

    def _attention(self, layer: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        attention = layer.get_submodule("self_attn")
        arguments = {"attention_mask": None, "position_embeddings": self._positions(inputs)}
        return _input_of(attention.get_submodule("o_proj"), attention, inputs, **arguments)

    def _positions(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cosines, sines = self._rotary(hidden, torch.arange(hidden.shape[1])[None])
        return cosines, sines


def _input_of(wanted: torch.nn.Module, outer: torch.nn.Module, *args: torch.Tensor, **kwargs: object) -> torch.Tensor:
    """What reaches a module when the one around it is called."""

    def reached(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        raise _Reached(inputs[0])

    handle = wanted.register_forward_pre_hook(reached)
    try:
        outer(*args, **kwargs)
    except _Reached as stopped:
        return stopped.value
    finally:
        handle.remove()
    raise AssertionError("the module was not called")


def _single_layer(config: PretrainedConfig) -> PretrainedConfig:
    """The same decoder with one layer: all are alike in the families that we read."""
    single = copy.deepcopy(config)
    single.num_hidden_layers = 1
    if getattr(single, "layer_types", None):
        single.layer_types = single.layer_types[:1]
    return single
