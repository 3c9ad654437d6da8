"""A checkpoint in llama.cpp's format, GGUF, as llama.cpp's own convert_hf_to_gguf.py writes it.

Names and metadata are those of PyPI's `gguf`. The vocabulary is left out ("no_vocab") unless it is given: most benches
feed ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np

from slmc.architecture import Architecture, Llama3Scaling, TensorSpec
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.reader import TensorReader, open_checkpoint

KINDS = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
F32 = gguf.GGMLQuantizationType.F32


def write_gguf(
    checkpoint: Path,
    path: Path,
    *,
    context: int,
    matrices: gguf.GGMLQuantizationType = F32,
    vocabulary: Callable[[gguf.GGUFWriter], None] | None = None,
) -> Path:
    """Write the checkpoint's tensors: matrices in the type asked for, vectors in float32; `vocabulary` adds the tokens.

    Raises CheckpointError for a folder that is no checkpoint, SystemExit for a family that is not written here, or a
    rope that llama.cpp can't run.
    """
    architecture = open_checkpoint(checkpoint).architecture
    if architecture.family not in KINDS:
        raise SystemExit(f"no way to write {architecture.family} as GGUF; there is for {', '.join(KINDS)}")
    factors = rope_factors(architecture) if architecture.ropes[0].scaling else None
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, architecture.family, use_temp_file=True)
    add_facts(writer, architecture, context)
    if vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        vocabulary(writer)
    with TensorReader(checkpoint) as reader:
        for spec, name in gguf_names(architecture):
            values = interleaved(reader.array(spec.name), spec, architecture)
            if values.ndim == 2 and matrices != F32:
                writer.add_tensor(name, gguf.quants.quantize(values, matrices), raw_dtype=matrices)
            else:
                writer.add_tensor(name, values)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.rename(path)


def read_gguf(path: Path, architecture: Architecture) -> Iterator[tuple[str, Float32]]:
    """The tensors of a file that `write_gguf` wrote, quantized since or not: name in the checkpoint, and values."""
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for spec, name in gguf_names(architecture):
        tensor = stored[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(spec.shape)
        yield spec.name, halves(values, spec, architecture)


def bits_per_weight(path: Path) -> float:
    """Of all tensors together, from the file."""
    tensors = gguf.GGUFReader(path).tensors
    return 8 * sum(int(tensor.n_bytes) for tensor in tensors) / sum(int(tensor.n_elements) for tensor in tensors)


def gguf_names(architecture: Architecture) -> Iterator[tuple[TensorSpec, str]]:
    names = gguf.get_tensor_name_map(KINDS[architecture.family], architecture.layers)
    for spec in architecture.tensors():
        yield spec, names.get_name(spec.name, try_suffixes=(".weight", ".bias"))


def interleaved(values: Float32, spec: TensorSpec, architecture: Architecture) -> Float32:
    """Rows of a Llama's q and k in the order of llama.cpp's rope.

    Hugging Face turns dimension i of a head with i + head_dim / 2; llama.cpp turns neighbours, in this family alone.
    """
    if not _is_turned(spec, architecture):
        return values
    heads = values.reshape(-1, 2, architecture.head_dim // 2, values.shape[-1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(values.shape)


def halves(values: Float32, spec: TensorSpec, architecture: Architecture) -> Float32:
    """The inverse of `interleaved`."""
    if not _is_turned(spec, architecture):
        return values
    heads = values.reshape(-1, architecture.head_dim // 2, 2, values.shape[-1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(values.shape)


def _is_turned(spec: TensorSpec, architecture: Architecture) -> bool:
    return architecture.family == "llama" and spec.name.endswith(("q_proj.weight", "k_proj.weight"))


def rope_factors(architecture: Architecture) -> Float32:
    """What llama.cpp divides each rope frequency by: float32 [head_dim / 2], Llama 3's scaling written out."""
    scaling = architecture.ropes[0].scaling
    if architecture.family != "llama" or not isinstance(scaling, Llama3Scaling):
        raise SystemExit(f"no way to write this rope scaling as GGUF for {architecture.family}: {scaling}")
    exponents = np.arange(0, architecture.head_dim, 2) / architecture.head_dim
    wavelengths = 2 * math.pi * architecture.ropes[0].theta ** exponents
    return np.array([_factor(length, scaling) for length in wavelengths], np.float32)


def _factor(wavelength: float, scaling: Llama3Scaling) -> float:
    """As transformers computes it in `_compute_llama3_parameters`."""
    turns = scaling.original_context / wavelength
    if turns > scaling.high_frequency_factor:
        return 1.0
    if turns < scaling.low_frequency_factor:
        return scaling.factor
    smooth = (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor)
    return 1 / ((1 - smooth) / scaling.factor + smooth)


def add_facts(writer: gguf.GGUFWriter, architecture: Architecture, context: int) -> None:
    writer.add_context_length(context)
    writer.add_embedding_length(architecture.hidden_size)
    writer.add_block_count(architecture.layers)
    writer.add_feed_forward_length(architecture.intermediate_size)
    writer.add_head_count(architecture.heads)
    writer.add_head_count_kv(architecture.kv_heads)
    writer.add_key_length(architecture.head_dim)
    writer.add_value_length(architecture.head_dim)
    writer.add_rope_dimension_count(architecture.head_dim)
    writer.add_rope_freq_base(architecture.ropes[0].theta)
    writer.add_layer_norm_rms_eps(architecture.rms_eps)
    writer.add_vocab_size(architecture.vocab_size)
