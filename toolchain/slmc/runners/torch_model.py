"""A checkpoint as transformers runs it: the reference in its own precision, the quantized one dequantized.

The only module of slmc that loads a model into torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmc.checkpoint.unmerged import adapter_beside
from slmc.errors import InputError, MissingToolError
from slmc.quant.reader import QuantizedReader
from slmc.quant.table import TABLE_FILE

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

DeviceName = Literal["auto", "cuda", "mps", "cpu"]


@dataclass(frozen=True)
class TorchModel:
    model: PreTrainedModel
    device: torch.device
    context: int
    vocab_size: int
    precision: str

    @property
    def device_name(self) -> str | None:
        """The accelerator's own name; None for the CPU."""
        import torch

        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "Apple GPU" if self.device.type == "mps" else None


def load(folder: Path, device: DeviceName) -> TorchModel:
    """Raises MissingToolError without torch, InputError for a device that there is not."""
    try:
        import torch
        from transformers import AutoConfig
    except ImportError as error:
        raise MissingToolError(
            f"the reference needs torch and transformers: {error}", todo="pip install 'slmc[reference]'"
        ) from None
    place = _device(device)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    quantized = (folder / TABLE_FILE).is_file()
    # A code times a bf16 scale takes eleven bits: bf16 would round the very weights that are to be judged.
    exact = quantized or place.type == "cpu"
    dtype = torch.float32 if exact else config.dtype or torch.float32
    model = _load_quantized(folder, config) if quantized else _load_plain(folder, dtype)
    adapter = adapter_beside(folder)
    if adapter is not None:
        model = _adapted(model, adapter)
    model = model.to(device=place, dtype=dtype).eval()
    precision = str(dtype).removeprefix("torch.")
    return TorchModel(
        model=model,
        device=place,
        context=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        precision=f"quantized weights in {precision}" if quantized else precision,
    )


def _device(name: DeviceName) -> torch.device:
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in there.items() if present))
    if not there[name]:
        raise InputError(f"this machine has no {name} device", todo="leave --device at auto")
    return torch.device(name)


def _load_plain(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)


def _adapted(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """With the adapter beside each linear, as in training."""
    import peft

    found: PreTrainedModel = peft.PeftModel.from_pretrained(model, adapter, local_files_only=True).base_model.model
    return found


def _load_quantized(folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """The model's own code with each weight set to its codes times its scales, float32."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    # compressed-tensors' own modules stay out of it: what is judged is the numbers that backends read.
    del config.quantization_config
    with QuantizedReader(folder) as reader:
        config.tie_word_embeddings = reader.architecture.tied
        with no_init_weights():  # random numbers that would be overwritten cost more than the reading
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.tie_weights()
        parameters = dict(model.named_parameters())
        for spec in reader.architecture.tensors():
            parameters.pop(spec.name).data.copy_(torch.from_numpy(reader.dequantized(spec.name)))
    assert not parameters, f"parameters without a tensor: {sorted(parameters)}"
    return model
