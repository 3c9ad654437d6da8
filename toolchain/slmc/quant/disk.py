"""The quantized checkpoint as compressed-tensors' pack-quantized format has it.

Beside `config.json` with its `quantization_config`, a weight [rows, columns] lies as

    <module>.weight_packed   int32 [rows, columns / 8], see `packing`
    <module>.weight_scale    float32 [rows, columns / group], each value a bf16
    <module>.weight_shape    int64 [2]

compressed-tensors 0.20 with transformers 5.23 loads this with
`AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)`, and the weights are exactly
codes times scales. Found by trial:

- `"dequantize": true` unpacks while loading. Without it transformers fails to initialise a packed
  embedding, and can't tie a packed head to it; with it both work, so a tied head is stored once.
- Unpacking multiplies in the scale's own type. With bf16 scales the products would lose four of
  their eleven bits; stored as float32 they are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from slmc.architecture import TensorSpec
from slmc.checkpoint.writer import TensorFormat
from slmc.quant.packing import PER_WORD
from slmc.quant.schemes import Scheme

CONFIG_KEY = "quantization_config"


def packed_name(name: str) -> str:
    return name + "_packed"


def scale_name(name: str) -> str:
    return name + "_scale"


def shape_name(name: str) -> str:
    return name + "_shape"


def formats(spec: TensorSpec, group_size: int) -> list[TensorFormat]:
    """The three stored tensors of a quantized one."""
    rows, columns = spec.shape
    return [
        TensorFormat(packed_name(spec.name), "I32", (rows, columns // PER_WORD)),
        TensorFormat(scale_name(spec.name), "F32", (rows, columns // group_size)),
        TensorFormat(shape_name(spec.name), "I64", (2,)),
    ]


def quantization_config(scheme: Scheme, kept_modules: Sequence[str]) -> dict[str, object]:
    """What config.json tells compressed-tensors; `kept_modules` are linears and embeddings left as they are."""
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": scheme.group_size,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "dequantize": True,
        "config_groups": {
            "group_0": {
                "targets": ["Linear", "Embedding"],
                "weights": weights,
                "input_activations": None,
                "output_activations": None,
            }
        },
        "ignore": list(kept_modules),
    }
