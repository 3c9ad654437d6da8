"""The quantized checkpoint as compressed-tensors' pack-quantized format has it.

What config.json says beside weights stored as in `slmc.checkpoint.packed`, each scale a bf16 in
float32. compressed-tensors 0.20 with transformers 5.23 loads this with
`AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)`, and the weights are exactly
codes times scales. Found by trial:

- `"dequantize": true` unpacks while loading. Without it transformers fails to initialise a packed
  embedding, and can't tie a packed head to it; with it both work, so a tied head is stored once.
- Unpacking multiplies in the scale's own type. With bf16 scales the products would lose four of
  their eleven bits; stored as float32 they are exact.
- With it transformers unpacks every tensor by the first config group, whatever a group's targets
  name: a tensor of other bits comes out wrong without a word. So all tensors are packed alike, in 8
  bits where one needs them; how many bits the codes of each really have is in `quantization.json`.
"""

from __future__ import annotations

from collections.abc import Iterable

from slmc.architecture import MATRICES
from slmc.checkpoint.dtypes import DType
from slmc.names import SCHEMES, Bits, Scheme
from slmc.quant.table import QuantizationTable

SCALES: DType = "F32"


def packed_bits(schemes: Iterable[Scheme | None]) -> Bits:
    """What a code of any tensor takes in a checkpoint whose tensors have these schemes, None if kept."""
    return max((scheme.bits for scheme in schemes if scheme is not None), default=4)


def quantization_config(table: QuantizationTable) -> dict[str, object]:
    """What config.json tells compressed-tensors."""
    weights = {
        "num_bits": packed_bits(None if row.scheme is None else SCHEMES[row.scheme] for row in table.tensors),
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": table.group_size,
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
        "ignore": _kept_modules(table),
    }


def _kept_modules(table: QuantizationTable) -> list[str]:
    """Modules that compressed-tensors would take for quantized ones. A tied head goes with its embedding."""
    kept = [row for row in table.tensors if row.scheme is None and row.role in MATRICES]
    modules = [row.name.removesuffix(".weight") for row in kept]
    if table.tied and any(row.role == "embedding" for row in kept):
        modules.append("lm_head")
    return modules
